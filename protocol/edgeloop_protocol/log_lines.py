"""Logs that nobody can write lines into: one record is one line, whatever strangers called things.

Invariants: no control character gets through, so that a name can neither begin a line that looks
like a record nor steer the terminal that shows it; the lines of an exception are indented.
"""

import logging
import unicodedata
from typing import Any, Final

INDENT: Final = "    "
_KEPT: Final = frozenset("\t")
_CONTROLS: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Unicode's categories: controls, what turns writing about, ends of lines, halves of pairs."""


def printable(text: str, kept: frozenset[str] = _KEPT) -> str:
    """Each control character as its escape, `\\n` as two characters."""
    if text.isprintable():
        return text
    return "".join(c if c in kept or not _is_control(c) else _escaped(c) for c in text)


class OneLineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()
        return "\n".join(INDENT + printable(line) for line in lines)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
