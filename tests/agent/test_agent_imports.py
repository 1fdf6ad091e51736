"""What supervisor and runner import, asked of both after a real start, an install and a stop."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OURS = {"edgeloop_agent", "edgeloop_protocol"}
SUPERVISOR_MAY = OURS | {
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
    "paho",
}
RUNNER_MAY = OURS | {"numpy", "onnxruntime", "datasketches"}
HEAVY = {
    *("asyncio", "multiprocessing", "concurrent", "unittest", "xml", "xmlrpc", "curses"),
    *("tkinter", "pdb", "doctest", "pydoc", "distutils"),
}
RUNNER_NEEDS_NOT = HEAVY | {
    *("ssl", "_ssl", "_hashlib", "http", "email", "sqlite3", "argparse", "subprocess"),
    "importlib.metadata",
}
SAY = "MODULES"
WITNESS = f"""
import atexit, sys
atexit.register(lambda: print("{SAY}", *sorted(sys.modules), file=sys.stderr, flush=True))
"""


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every Python that starts says at its end what it has imported."""
    directory = tmp_path_factory.mktemp("witness")
    (directory / "sitecustomize.py").write_text(WITNESS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(directory), prepend=":")
        yield


@pytest.fixture(scope="module")
def imported(witness: None, bench: Any) -> dict[str, set[str]]:
    assert bench.agent.stop() == 0
    return {
        "supervisor": modules_said(bench.agent.log_path),
        "runner": modules_said(bench.agent.state_dir / "runner-main.log"),
    }


def modules_said(log: Path) -> set[str]:
    (said,) = [line for line in log.read_text().splitlines() if line.startswith(SAY)]
    return set(said.split()[1:])


def packages(modules: set[str]) -> set[str]:
    """The top of each, without Python's own and without private ones, which come with others."""
    tops = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    return tops - sys.stdlib_module_names - {"sitecustomize", "usercustomize"}


def test_the_supervisor_imports_what_it_may_and_no_more(imported: dict[str, set[str]]) -> None:
    modules = imported["supervisor"]
    assert {"edgeloop_agent.shell.supervisor", "paho.mqtt.client", "sqlite3"} <= modules
    assert packages(modules) <= SUPERVISOR_MAY
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    runners = ("edgeloop_agent.runner.", "edgeloop_agent.patching")
    assert not {name for name in modules if name.startswith(runners)}


def test_a_runner_imports_what_its_configuration_needs(imported: dict[str, set[str]]) -> None:
    modules = imported["runner"]
    assert {"edgeloop_agent.runner.serving", "onnxruntime"} <= modules
    assert packages(modules) <= RUNNER_MAY, "no pydantic, no paho, no h11"
    assert not modules & RUNNER_NEEDS_NOT
    assert (
        not {"edgeloop_agent.runner.open_inference", "edgeloop_agent.runner.mqtt_topic"} & modules
    )
