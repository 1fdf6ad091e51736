"""The selector grammar: which devices something is for, asked by the controller and by a device.

    selector := "all" | term ("," term)*
    term     := key "=" value | key "!=" value | key | "!" key
              | key "in" "(" value ("," value)* ")" | key "not" "in" "(" value ("," value)* ")"
              | key ("<" | "<=" | ">" | ">=") value

Terms are joined by "and". A key is a label, or built in (`device_facts`): `device`, `arch`,
`online`, `quarantine`, `model.NAME` … As in Kubernetes, `key != value` and `key not in (...)` hold
too where the key is absent; `key` alone asks that it is there, and an order (`model.watch<2.1`,
`memory>=512MB`) too. Values stand in order as sizes where one has a unit, else as versions, part by
part between `.`, `-`, `_` and `+`: numbers by size and after texts, and an end between the two, so
that 2.9 < 2.10-rc1 < 2.10 < 2.10.1. A key named `all`,
`in` or `not` cannot stand alone as a term. A value with other characters than letters, digits and
`_.+/:@-` stands in double quotes, in which `\\` escapes `"` and itself.

Invariants: pure; `parse(str(selector)) == selector`; an error names the position and the mend.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from edgeloop_protocol.device_facts import Facts, is_built_in, values_of
from edgeloop_protocol.errors import SelectorError
from edgeloop_protocol.limits import SELECTOR_MAX_CHARS

EVERYTHING: Final = "all"

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<word>[A-Za-z0-9_.+/:@-]+)|"(?P<quoted>(?:[^"\\]|\\["\\])*)"'
    r"|(?P<mark>!=|<=|>=|[=!,()<>]))"
)
_WORD: Final = re.compile(r"[A-Za-z0-9_.+/:@-]+")
_KEYWORDS: Final = frozenset({EVERYTHING, "in", "not"})

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[kKMGT]i?)?B?")
_UNITS: Final[Mapping[str, int]] = {
    **{unit: 1000**power for power, unit in enumerate("kMGT", start=1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGT", start=1)},
    "": 1,
    "K": 1000,
}


@dataclass(frozen=True)
class Term:
    """`key` among `values`, or not when `negated`; empty `values` ask only whether it is there.
    With `order`, one of `<`, `<=`, `>`, `>=`, the key stands so to its one value."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False
    order: str = ""

    def holds(self, device: Facts) -> bool:
        had = values_of(device, self.key)
        if self.order:
            compare = _ORDERS[self.order]
            return any(compare(*_ranks(value, self.values[0])) for value in had)
        found = bool(had) and (not self.values or any(value in self.values for value in had))
        return found != self.negated

    def __str__(self) -> str:
        if self.order:
            return f"{self.key}{self.order}{_written(self.values[0])}"
        if not self.values:
            return f"{'!' if self.negated else ''}{self.key}"
        if len(self.values) == 1:
            return f"{self.key}{'!=' if self.negated else '='}{_written(self.values[0])}"
        listed = ", ".join(_written(value) for value in self.values)
        return f"{self.key} {'not in' if self.negated else 'in'} ({listed})"


@dataclass(frozen=True)
class Selector:
    """All of `terms` must hold; none: every device."""

    terms: tuple[Term, ...] = ()

    def matches(self, device: Facts) -> bool:
        return all(term.holds(device) for term in self.terms)

    @property
    def asks_labels_only(self) -> bool:
        """Devices with the same labels are alike to it."""
        return not any(is_built_in(term.key) for term in self.terms)

    def __str__(self) -> str:
        return ", ".join(str(term) for term in self.terms) or EVERYTHING


def parse(text: str) -> Selector:
    """Raises SelectorError with the position (from 1) and what would be right there."""
    if len(text) > SELECTOR_MAX_CHARS:
        raise SelectorError(
            f"the selector has {len(text)} characters; the limit is {SELECTOR_MAX_CHARS}",
            "give the devices a common label and select by it",
        )
    tokens = _tokens(text)
    if [token.text for token in tokens] == [EVERYTHING, ""] and tokens[0].kind == "word":
        return Selector()
    return _Parser(text, tokens).selector()


class _Token(NamedTuple):
    kind: str
    """word, quoted, mark or end."""
    text: str
    at: int


class _Parser:
    """Recursive descent over the tokens; the last one is always the end."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def selector(self) -> Selector:
        terms = [self._term()]
        while not self._skip_end():
            self._mark(",", "a comma between two terms, or the end")
            terms.append(self._term())
        return Selector(tuple(terms))

    def _term(self) -> Term:
        if self._try_mark("!"):
            return Term(self._key(), negated=True)
        key = self._key()
        if self._try_mark("="):
            return Term(key, (self._value(),))
        if self._try_mark("!="):
            return Term(key, (self._value(),), negated=True)
        for order in _ORDERS:
            if self._try_mark(order):
                return Term(key, (self._value(),), order=order)
        if self._try_word("in"):
            return Term(key, self._values())
        if self._try_word("not"):
            if not self._try_word("in"):
                raise self._error('"in" after "not"')
            return Term(key, self._values(), negated=True)
        return Term(key)

    def _values(self) -> tuple[str, ...]:
        self._mark("(", "a list such as (a, b)")
        values = [self._value()]
        while not self._try_mark(")"):
            self._mark(",", 'a comma, or ")" that ends the list')
            values.append(self._value())
        return tuple(values)

    def _key(self) -> str:
        token = self._tokens[self._next]
        if token.kind != "word" or token.text in _KEYWORDS:
            raise self._error('a label\'s name, such as site=berlin, or "all" alone')
        self._next += 1
        return token.text

    def _value(self) -> str:
        token = self._tokens[self._next]
        if token.kind not in ("word", "quoted"):
            raise self._error('a value; one with other characters stands in "double quotes"')
        self._next += 1
        return token.text

    def _mark(self, mark: str, wanted: str) -> None:
        if not self._try_mark(mark):
            raise self._error(wanted)

    def _try_mark(self, mark: str) -> bool:
        return self._try("mark", mark)

    def _try_word(self, word: str) -> bool:
        return self._try("word", word)

    def _skip_end(self) -> bool:
        return self._try("end", "")

    def _try(self, kind: str, text: str) -> bool:
        token = self._tokens[self._next]
        if (token.kind, token.text) != (kind, text):
            return False
        self._next += token.kind != "end"
        return True

    def _error(self, wanted: str) -> SelectorError:
        return _error_at(self._text, self._tokens[self._next].at, wanted)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            wanted = (
                'the end of the "quoted value"' if text[at] == '"' else "a label or an operator"
            )
            raise _error_at(text, at, wanted)
        kind = str(match.lastgroup)
        written = match.group(kind)
        value = re.sub(r"\\(.)", r"\1", written) if kind == "quoted" else written
        tokens.append(_Token(kind, value, match.start(kind)))
        at = match.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _error_at(text: str, at: int, wanted: str) -> SelectorError:
    found = repr(text[at:][:20]) if at < len(text) else "the end"
    return SelectorError(
        f"selector {text[:80]!r}: at position {at + 1} expected {wanted}, found {found}",
        'write "all", or terms joined by commas: site=berlin, zone in (a, b), !spare, '
        "model.watch<2.1, memory>=512MB",
    )


def _written(value: str) -> str:
    if _WORD.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ranks(left: str, right: str) -> tuple[Any, Any]:
    """Two values as what can be compared."""
    sizes = _size(left), _size(right)
    if None in sizes or not any(value[-1:].isalpha() for value in (left, right)):
        return _version(left), _version(right)
    return sizes


@lru_cache(1024)
def _size(value: str) -> float | None:
    """Bytes of `512MB` or `2GiB`, and the number of one without a unit."""
    match = _SIZE.fullmatch(value)
    if match is None:
        return None
    number, unit = match["number"], match["unit"]
    return float(str(number)) * _UNITS[str(unit or "")]


@lru_cache(1024)
def _version(value: str) -> tuple[tuple[bool, int, str], ...]:
    parts = re.split(r"[.+_-]", value)
    ranks = ((True, int(p), "") if p.isdecimal() else (False, 0, p) for p in parts)
    return (*ranks, (True, -1, ""))
