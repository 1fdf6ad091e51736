"""Every key that tomllib gives has a line, and it is the right one."""

import tomllib
from typing import Any

import pytest

from edgeloop_simulators.toml_lines import Path, line_at, lines_of

DOCUMENT = '''\
# a comment = 1
title = "x # no comment"  # a comment

"quoted key".'and [this]' = 1
when = 1979-05-27 07:32:00
dates = [1979-05-27, 07:32:00]
text = """
not = "a key"
[[nor]]
\\""" still"""
raw = \'\'\'
[raw]
\'\'\'
[a.b]
one = { two = 2, "three.3" = [ { four = 4 },
 {} ] }
list = [
  # first
  "x",
  [ 1, 2,
    3 ],
  { deep = true },
]
[[sites]]
name = "north"
[sites.labels]
crop = "wheat"
[[sites]]
name = "south"
  [[sites.rows]]
  n = 1
  [[sites.rows]]
  n = 2
[a]
c = -1.5e3
'''


def paths(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, below in value.items():
            found |= paths(below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            found |= paths(below, (*path, number))
    return found


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_a_line_and_no_other(newline: str) -> None:
    text = DOCUMENT.replace("\n", newline)
    assert set(lines_of(text)) == paths(tomllib.loads(text))


@pytest.mark.parametrize(
    ("path", "starts_with"),
    [
        (("quoted key", "and [this]"), '"quoted key"'),
        (("text",), "text ="),
        (("a", "b", "one", "three.3", 0, "four"), "one ="),
        (("a", "b", "list", 0), '"x"'),
        (("a", "b", "list", 1, 2), "3 ]"),
        (("a", "b", "list", 2, "deep"), "{ deep"),
        (("sites", 0, "labels", "crop"), "crop"),
        (("sites", 1), "[[sites]]"),
        (("sites", 1, "name"), 'name = "south"'),
        (("sites", 1, "rows", 1, "n"), "n = 2"),
        (("a", "c"), "c ="),
    ],
)
def test_lines_are_right(path: Path, starts_with: str) -> None:
    line = DOCUMENT.splitlines()[lines_of(DOCUMENT)[path] - 1]
    assert line.strip().startswith(starts_with)


def test_what_is_missing_is_looked_for_where_it_should_stand() -> None:
    lines = lines_of(DOCUMENT)
    assert line_at(lines, ("sites", 1, "devices")) == lines["sites", 1]
    assert line_at(lines, ("nothing",)) == 1
