"""What the story knows of the controller: asked for by version, not by what came last."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop_simulators.errors import StoryError
from edgeloop_simulators.world import World

CANDIDATE = "2" * 64


def run(number: int, status: str, digest: str | None) -> dict[str, Any]:
    candidate = digest and {"name": "exercise", "version": "2", "manifest_digest": digest}
    return {"id": number, "status": status, "candidate": candidate, "directory": f"/runs/{number}"}


def world(runs: list[dict[str, Any]]) -> World:
    """`runs` as GET /v1/retraining/runs lists them, the newest first."""
    bed: Any = SimpleNamespace(
        directory=Path("/run"),
        published={"retrained": CANDIDATE},
        console=SimpleNamespace(training_runs=lambda: runs),
    )
    listener: Any = None
    return World(bed, listener)


def test_the_output_of_a_version_is_of_the_run_that_made_it() -> None:
    runs = [run(3, "running", None), run(2, "rejected", None), run(1, "succeeded", CANDIDATE)]
    assert world(runs).output_of("retrained") == Path("/runs/1/output")
    runs = [run(2, "succeeded", "3" * 64), run(1, "succeeded", CANDIDATE)]
    assert world(runs).output_of("retrained") == Path("/runs/1/output")


def test_a_version_that_no_run_made_is_said_so() -> None:
    with pytest.raises(StoryError, match="no training run made the version 2222"):
        world([run(1, "rejected", None)]).output_of("retrained")
