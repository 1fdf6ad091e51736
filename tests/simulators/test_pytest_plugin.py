"""The fixture `fleet`: docs/testing-models.md runs as it stands, and importing it costs nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.virtual.fleet_builder import Fleet

PAGE = Path(__file__).parents[2] / "docs" / "testing-models.md"
HEAVY = ("numpy", "onnxruntime", "sqlalchemy", "pydantic", "edgeloop_controller")


def test_the_page_of_the_docs_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    (tmp_path / "test_exercise.py").write_text(code[1])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "test_exercise.py",
        "--fleet-report",
        "reports",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert len(list(tmp_path.glob("reports/*/report.html"))) == 2


def test_the_plugin_is_light_to_import() -> None:
    code = "import edgeloop_simulators.pytest_plugin, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(ran.stdout.split())


def test_a_fleet_of_synthetic_versions(fleet: Fleet) -> None:
    fleet.device_class("old", architecture="armv7l", link="2g")
    fleet.devices("hall", 2)
    fleet.devices("yard", 1, device_class="old")
    fleet.synthetic("m@1", accuracy="95%", size="10 kB")
    fleet.roll_out("m@1", waves=["100%"], soak_s=10, probation={"min_s": 30})
    run = fleet.run("20 min")
    assert run.champions() == {"m@1": 3}
    assert run.champions("class:old") == {"m@1": 1}
    assert run.accuracy("site:yard") > 0.9
    assert run.false_rollbacks == []


def test_a_run_that_does_not_converge_fails_the_test(fleet: Fleet) -> None:
    fleet.devices("hall", 1)
    fleet.synthetic("m@1")
    fleet.roll_out("m@1", waves=["100%"])
    fleet.fault("partition", at="1 min", duration="9 min", target="hall-1")
    with pytest.raises(AssertionError, match="fleet converged: expected yes, came no"):
        fleet.run("10 min")


def test_what_cannot_be_run_is_refused_with_the_key(fleet: Fleet) -> None:
    fleet.devices("hall", 1)
    fleet.synthetic("m@1", goes="nowhere")
    fleet.roll_out("m@2")
    with pytest.raises(ScenarioError) as raised:
        fleet.run("10 min")
    assert "models[0].goes: Input should be 'crash'" in str(raised.value)
    assert "steps[0].model: no model 'm@2'" in str(raised.value)
