"""The spec and the code keep together: schemas are generated, requirement ids are cited."""

import re
from pathlib import Path

import pytest

from edgeloop_protocol.schemas import DOCUMENTS, schema_text

ROOT = Path(__file__).parents[2]
ID = re.compile(r"EL-[A-Z]+-\d+")


def _cited() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    ranges = re.compile(r"(EL-[A-Z]+-)(\d+) … EL-[A-Z]+-(\d+)")
    found: set[str] = set()
    for text in texts:
        found |= set(ID.findall(text))
        for prefix, first, last in ranges.findall(text):
            found |= {f"{prefix}{number}" for number in range(int(first), int(last) + 1)}
    return found


def _stated(name: str) -> set[str]:
    return set(re.findall(r"\*\*(EL-[A-Z]+-\d+)\*\*", (ROOT / "docs/spec" / name).read_text()))


def test_every_requirement_is_cited_by_a_test_and_every_citation_exists() -> None:
    stated = _stated("wire.md") | _stated("invariants.md")
    assert len(stated) > 40
    assert stated - _cited() == set(), "stated in docs/spec, cited by no test"
    assert _cited() - stated == set(), "cited by a test, not stated in docs/spec"


def test_every_law_is_looked_after_in_the_virtual_world_and_no_other() -> None:
    virtual = ROOT / "simulators/edgeloop_simulators/virtual"
    looking = (*virtual.glob("laws/*.py"), *virtual.glob("world/*.py"))
    told = {
        law
        for path in looking
        for law in re.findall(r'"(EL-INV-\d+)"', path.read_text(encoding="utf-8"))
    }
    assert told == _stated("invariants.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_schemas_are_those_of_the_code(name: str) -> None:
    committed = (ROOT / f"docs/spec/schemas/{name}.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(DOCUMENTS[name]), "run `make schemas`"
