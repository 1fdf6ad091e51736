"""Each shipped scenario of a virtual world comes to what it expects, and its page can be drawn."""

from pathlib import Path

import pytest

from edgeloop_simulators.virtual.report.document import document
from edgeloop_simulators.virtual.report.page import render
from edgeloop_simulators.virtual.run.play import play
from edgeloop_simulators.virtual.scenario.load import load_virtual, shipped_virtual

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", shipped_virtual())
def test_it_comes_to_what_it_expects(name: str) -> None:
    run = play(load_virtual(shipped_virtual()[name]))
    assert [str(check) for check in run.checks if not check.passed] == []
    assert len(run.checks) > 6, "it expects something of its own"
    assert "As expected" in render(document(run))


def test_each_is_documented() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    for name, path in shipped_virtual().items():
        assert f"`{name}`" in page
        assert load_virtual(path).scenario.title in page
