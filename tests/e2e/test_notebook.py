"""The notebook in docs/ runs as it stands, in a real kernel and on a real fleet."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first-fleet.ipynb"
OF_A_MACHINE = ("/root", "/home", "/tmp", "/work", "127.0.0.1", "Traceback")
PATIENCE_S = 240
CHECK = """
assert published.created and published.manifest.baseline.count == len(baseline)
assert done.status == "done" and done.members.committed == 6
assert set(telemetry["version"]) == {"exercise@1"} and telemetry["errors"].sum() == 0
assert str(telemetry["received_at"].dtype) == "datetime64[ms, UTC]"
assert telemetry.filter(like="predicted_").sum().sum() == telemetry["examples"].sum()
assert {"ax_mean", "wz_mean_abs_diff"} <= set(samples)
assert by_feature["psi"].max() > 1
shown = {device.slots[0].champion.version for device in fleet.devices()}
assert shown == {"1"}, "the bad version is nowhere"
assert rollout.status == "done" and len(fleet.rollouts()) == 2
assert [one.status for one in fleet.rollouts()] == ["halted", "done"]
"""


def outputs(notebook: Any) -> str:
    return str([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])


def test_the_notebook_runs_and_shows_a_bar() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = outputs(notebook)
    last = len(notebook.cells) - 1
    notebook.cells.insert(last, nbformat.v4.new_code_cell(CHECK))
    NotebookClient(notebook, timeout=PATIENCE_S, kernel_name="python3").execute()
    said = outputs(notebook)
    for text in (kept, said):
        assert '<progress value="1.000" max="1">' in text
        assert "was halted in wave 1 of 2: exercise@2 disagrees with exercise@1" in text
        assert "world_changed" in text
    assert not [word for word in OF_A_MACHINE if word in kept]
