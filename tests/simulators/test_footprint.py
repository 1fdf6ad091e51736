"""The goals of DESIGN's two processes: what `make bench` prints, asked in the tests."""

from pathlib import Path

import pytest

from edgeloop_simulators.bench.footprint import (
    RUNNER_ABOVE_MB_MAX,
    SUPERVISOR_MB_MAX,
    footprint_rows,
)
from edgeloop_simulators.bench.model import bench_model


@pytest.mark.e2e
def test_both_processes_are_within_their_goals(tmp_path: Path) -> None:
    rows = {row.what: row for row in footprint_rows(bench_model(), tmp_path)}
    supervisor, runner = rows["supervisor, resident"], rows["runner, resident"]
    assert supervisor.floor < supervisor.ours <= SUPERVISOR_MB_MAX
    assert 0 < runner.ours - runner.floor <= RUNNER_ABOVE_MB_MAX
    private = rows["runner, private dirty"]
    assert 0 < private.ours - private.floor <= RUNNER_ABOVE_MB_MAX
