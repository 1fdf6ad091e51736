"""The fixture `fleet`: a virtual fleet to test a model and a rollout policy on.

Invariant: imports nothing but pytest before a test asks for the fixture, because every run of
pytest where this package is installed imports it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgeloop_simulators.virtual.fleet_builder import Fleet


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("edgeloop").addoption(
        "--fleet-report",
        metavar="DIR",
        default=None,
        help="write the report of each fleet's run to DIR/TEST/report.html",
    )


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> "Fleet":
    """A fleet with nothing in it; relative paths start from the test's directory."""
    from edgeloop_simulators.virtual.fleet_builder import Fleet

    reports = request.config.getoption("--fleet-report")
    name = "".join(c if c.isalnum() or c in "_-" else "-" for c in request.node.name)
    return Fleet(request.path.parent, Path(reports) / name if reports else None)
