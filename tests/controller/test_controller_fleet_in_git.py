"""The steps of examples/fleet-in-git, run by bash as GitHub's runner runs them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-in-git"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    directory = tmp_path / "checkout"
    shutil.copytree(EXAMPLE, directory)
    return directory


def steps_for(event: str) -> list[str]:
    workflow = yaml.safe_load((EXAMPLE / ".github/workflows/fleet.yml").read_text())
    (job,) = workflow["jobs"].values()
    condition = f"github.event_name == '{event}'"
    return [
        step["run"]
        for step in job["steps"]
        if step.get("if", condition) == condition and "run" in step
    ]


def run_steps(event: str, url: str, checkout: Path) -> tuple[int, str]:
    """Exit code of the first step that fails, and the job's summary."""
    summary = checkout.parent / "summary.md"
    summary.write_text("")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EDGELOOP_URL": url,
        "EDGELOOP_ACTOR": "github/somebody",
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    code = 0
    for step in steps_for(event):
        done = subprocess.run(["bash", "-e", "-c", step], cwd=checkout, env=environment)
        code = code or done.returncode
    return code, summary.read_text()


def test_a_pull_request_shows_and_main_applies(
    cli: Any,
    url: str,
    controller: Any,
    make_device: Any,
    make_package: Any,
    checkout: Path,
    tmp_path: Path,
) -> None:
    controller.keep(make_package("3", name="watch"))
    controller.takes(make_device("watch-3").hello())
    (tmp_path / "scripts" / "watch").mkdir()
    (tmp_path / "scripts" / "watch" / "train.py").write_text("")

    assert run_steps("pull_request", url, checkout)[0] == 0
    code, summary = run_steps("pull_request", url, checkout)
    assert code == 0
    for line in (
        "device watch-3: label site=lab",
        "start watch@3",
        "policy when-the-world-moves: give",
    ):
        assert line in summary
    assert cli.json("rollout", "list")["items"] == []

    assert run_steps("push", url, checkout) == (0, "")
    assert cli.json("rollout", "show", "1")["selector"] == "site=lab"
    assert {entry["actor"] for entry in cli.json("audit")["items"]} == {"github/somebody"}
    assert "no difference" in run_steps("pull_request", url, checkout)[1]

    cli.run("rollout", "abort", "1")
    assert run_steps("push", url, checkout)[0] == 4  # a person has to decide
    (checkout / "fleet" / "lab.toml").write_text("[devces]")
    assert run_steps("pull_request", url, checkout)[0] != 0
