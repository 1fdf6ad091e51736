"""docs/security.md points at tests that are there, and names each attack once."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")


def references() -> list[tuple[str, str]]:
    """(file, name in it or empty); `::name` alone is of the file before it in the same cell."""
    found: list[tuple[str, str]] = []
    for cell in re.split(r"[|\n]", TEXT):
        file = ""
        for code in re.findall(r"`([^`]+)`", cell):
            if code.startswith("tests/"):
                file, _, name = code.partition("::")
                found.append((file, name))
            elif code.startswith("::"):
                assert file, cell
                found.append((file, code.removeprefix("::")))
    return found


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize(("file", "name"), sorted(set(references())))
def test_it_is_there(file: str, name: str) -> None:
    path = ROOT / file
    assert path.exists(), file
    if name:
        assert name in names_in(path), f"{file} has no {name}"


def test_every_row_points_somewhere_or_says_why_not() -> None:
    """Of the tables whose last column is their test."""
    rows = 0
    for table in re.split(r"\n\n", TEXT):
        lines = table.splitlines()
        if not lines or not lines[0].endswith("| test |"):
            continue
        for row in lines[2:]:
            said = row.split("|")[-2]
            assert "tests/" in said or "a promise" in said or "not ours, because" in row, row
            rows += 1
    assert rows > 55
