"""What the README says of wheels, asked of an index: only where EDGELOOP_ASK_INDEX is set, since
tests speak to nobody outside. `make wheels` asks for all of the table."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    "EDGELOOP_ASK_INDEX" not in os.environ,
    reason="EDGELOOP_ASK_INDEX is not set: no index is asked",
)


@pytest.fixture(scope="module")
def wheels():
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "tools" / "wheels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["wheels"] = module
    spec.loader.exec_module(module)
    try:
        if not module.has_index():
            pytest.skip("no package index answers: nothing can be resolved")
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer in time")
    return module


def said(wheels, row):
    """machine and Python → what the README's table says there."""
    lines = [line.strip("| ").split(" | ") for line in wheels.README.read_text().splitlines()]
    head = next(line for line in lines if line[-1].startswith("armv7, "))
    (cells,) = [line for line in lines if line[0] == row]
    return dict(zip(head[-len(cells) + 1 :], cells[1:], strict=True))


@pytest.mark.timeout(300)
def test_the_whole_agent_resolves_on_aarch64(wheels):
    machine, python = wheels.MACHINES[1], wheels.PYTHONS[0]
    found = wheels.resolve(machine, python, *wheels.requirements("onnx"), alone=False)
    assert {"onnxruntime", "numpy", "datasketches", "paho-mqtt"} <= set(found)
    assert said(wheels, "**edgeloop-agent[onnx]**")[f"{machine.name}, {python}"] == "yes"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["onnxruntime", "pydantic-core"])
def test_armv7_has_what_the_table_says(wheels, name):
    machine, python = wheels.MACHINES[2], wheels.PYTHONS[0]
    known = (*wheels.requirements(*wheels.EXTRAS), *wheels.BESIDE)
    asked = next(it for it in known if wheels.name_of(it) == name)
    found = wheels.resolve(machine, python, asked)
    assert bool(found) is (said(wheels, name)[f"{machine.name}, {python}"] == "yes")
