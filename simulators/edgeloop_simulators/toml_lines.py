"""On which line of a TOML file each key stands, so that an error can point at it.

tomllib gives no positions and tomlkit none of what it parsed (its issue 55), so this reads the
text a second time, for the keys alone.

Invariants: meant for text that tomllib has read without an error; then every key and every element
of an array of tables that tomllib gives has a line, at which it, or the table it opens, begins.
"""

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
Lines = dict[Path, int]

_BLANK: Final = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_KEY_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
_SCALAR: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9][^\s,\]}#]*|[^\s,\]}#]+",
    re.DOTALL,
)


def lines_of(text: str) -> Lines:
    """Path, such as `("sites", 1, "devices")`, to line, from 1. A key that several tables share
    (`[a.b]`, `[a.c]`: `a`) has the line of the first."""
    reader = _Reader(text.replace("\r\n", "\n"))
    reader.document()
    return reader.lines


def line_at(lines: Lines, path: Path) -> int:
    """The line of the path, or of what is nearest above it; 1 for the document itself."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines: Lines = {}
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1
        self._elements: dict[Path, int] = {}
        """How many elements of each array of tables were opened."""

    def document(self) -> None:
        table: Path = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._at)
        line = self._here()
        self._at += 2 if array else 1
        self._skip_blank()
        keys = self._key()
        self._skip_blank()
        self._at += 2 if array else 1
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path = (*path, key)
            self.lines.setdefault(path, line)
            if array and number == len(keys):
                self._elements[path] = self._elements.get(path, 0) + 1
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
                self.lines.setdefault(path, line)
        return path

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = table
        for key in self._key():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._at = self._text.index("=", self._at) + 1
        self._skip_blank()
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._inside("]", path, array=True)
        elif opening == "{":
            self._inside("}", path, array=False)
        else:
            match = _SCALAR.match(self._text, self._at)
            assert match is not None  # tomllib has read it
            self._at = match.end()

    def _inside(self, closing: str, path: Path, *, array: bool) -> None:
        self._at += 1
        number = 0
        self._skip_blank()
        while self._text[self._at] != closing:
            if array:
                self.lines[*path, number] = self._here()
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
            self._skip_blank()
        self._at += 1

    def _key(self) -> list[str]:
        keys = []
        while True:
            match = _KEY_PART.match(self._text, self._at)
            assert match is not None
            keys.append(_unquoted(match.group()))
            self._at = match.end()
            dot = _DOT.match(self._text, self._at)
            if dot is None:
                return keys
            self._at = dot.end()

    def _skip_blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _unquoted(key: str) -> str:
    if key[0] not in "\"'":
        return key
    return str(tomllib.loads(f"key = {key}")["key"])
