"""What a confined runner cannot do, tried by a process that is confined as a runner is."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from edgeloop_agent.config import AgentConfig, RunnerConfig, SlotConfig
from edgeloop_agent.runner import confinement
from edgeloop_agent.runner.confinement import ADDRESS_SPACE_HEADROOM_BYTES
from edgeloop_agent.runner.memory import in_words
from edgeloop_agent.shell.compose import with_memory_limit
from edgeloop_protocol import landlock
from edgeloop_protocol.limits import MIB

needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")

TRIAL = """
import json, os, socket, sys
from pathlib import Path
from edgeloop_agent.config import SlotConfig
from edgeloop_agent.runner import confinement, namespaces
from edgeloop_protocol import landlock
slot, models, memory = SlotConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def tried(act):
    try:
        act()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"

def refuse(*_, **__):
    raise PermissionError(1, "not here")

{before}
told = confinement.confine(slot, models)
if int(memory):
    confinement.limit_memory(told, int(memory))
said = {{}}
{trial}
print(json.dumps({{"said": said, "done": told.done, "lacking": told.lacking}}))
"""


@pytest.fixture
def attempt(tmp_path):
    """Runs `trial`, which fills `said`, in a process that is confined; returns what it printed."""
    models = tmp_path / "state" / "models"
    models.mkdir(parents=True)
    (models / "model.onnx").write_bytes(b"weights")

    def run(trial, before="", memory=0, slot=None):
        source = {"kind": "replay", "path": str(tmp_path / "stream.csv")}
        config = SlotConfig.model_validate({"source": source, **(slot or {})})
        script = TRIAL.format(trial=textwrap.dedent(trial), before=textwrap.dedent(before))
        done = subprocess.run(
            [sys.executable, "-c", script, config.model_dump_json(), str(models), str(memory)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.models = models
    return run


WRITES = """
for name, act in {
    "overwrite": lambda: (models / "model.onnx").open("r+b"),
    "create": lambda: (models / "new").write_bytes(b"x"),
    "remove": lambda: (models / "model.onnx").unlink(),
    "rename": lambda: (models / "model.onnx").rename(models / "old"),
    "read": lambda: (models / "model.onnx").read_bytes(),
}.items():
    said[name] = tried(act)
"""
NO_NAMESPACES = "namespaces.enter = refuse"
NO_LANDLOCK = "landlock.restrict = refuse"


@pytest.mark.parametrize("without", ["", NO_NAMESPACES, NO_LANDLOCK])
def test_the_model_folder_cannot_be_written_to(attempt, without):
    if without == NO_NAMESPACES and not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    found = attempt(WRITES, before=without)
    if without == NO_LANDLOCK and any("read-only: not so" in it for it in found["lacking"]):
        pytest.skip("this machine allows no namespaces")
    said = found["said"]
    assert said.pop("read") == "done"
    assert set(said.values()) <= {"PermissionError", "OSError"}, said
    assert (attempt.models / "model.onnx").read_bytes() == b"weights"
    assert not (attempt.models / "new").exists()
    assert any(it.startswith("model folder read-only: ") for it in found["done"])


def test_a_sink_beside_the_models_is_written_to_and_they_are_not(attempt, tmp_path):
    sink = {"kind": "jsonl", "path": str(tmp_path / "answers.jsonl")}
    trial = (
        WRITES
        + """
said["answer"] = tried(lambda: slot.sink.path.write_text("{}"))
said["rotate"] = tried(lambda: slot.sink.path.replace(str(slot.sink.path) + ".1"))
said["elsewhere"] = tried(lambda: Path("/var/tmp/edgeloop-was-here").write_text("x"))
"""
    )
    found = attempt(trial, slot={"sink": sink})
    if any("namespaces" in it for it in found["lacking"]):
        assert any("which holds the models" in it for it in found["lacking"])
        pytest.skip("this machine allows no namespaces")
    assert found["said"]["answer"] == found["said"]["rotate"] == "done"
    assert found["said"]["create"] != "done"
    if landlock.abi():
        assert found["said"]["elsewhere"] == "PermissionError"


@needs_landlock
def test_a_folder_that_holds_the_models_and_cannot_be_confined_is_said(attempt, tmp_path):
    sink = {"kind": "jsonl", "path": str(tmp_path / "answers.jsonl")}
    found = attempt(WRITES, before=NO_NAMESPACES, slot={"sink": sink})
    lacking = " ".join(found["lacking"])
    assert "model folder read-only: not so" in lacking
    assert "which holds the models" in lacking


CONNECT = """
port = int(os.environ["LISTENING_PORT"])
said["connect"] = tried(lambda: socket.create_connection(("127.0.0.1", port), 5))
"""


@pytest.mark.parametrize(
    ("slot", "without", "expected"),
    [
        ({}, "", False),
        ({}, NO_NAMESPACES, False),
        ({"runner": {"network": "host"}}, "", True),
    ],
)
def test_no_tcp_connection_can_be_opened(attempt, monkeypatch, slot, without, expected):
    if without and not landlock.holds_tcp(landlock.abi()):
        pytest.skip("this kernel's Landlock knows of no TCP")
    with __import__("socket").create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("LISTENING_PORT", str(server.getsockname()[1]))
        found = attempt(CONNECT, before=without, slot=slot)
    assert (found["said"]["connect"] == "done") is expected
    assert any("network: open" in it for it in found["lacking"]) is expected
    assert any(it.startswith("no network: ") for it in found["done"]) is not expected


def test_a_source_that_does_not_say_so_is_taken_to_need_the_network(tmp_path):
    class Plugged:
        kind = "mqtt"

    slot = SlotConfig.model_validate({"source": {"kind": "socket", "path": "/s"}})
    assert confinement._needs_network(slot) == ""
    slot = slot.model_copy(update={"source": Plugged()})
    assert confinement._needs_network(slot) == 'source "mqtt"'


def test_memory_beyond_the_limit_cannot_be_had(attempt):
    trial = f"""
said["within"] = tried(lambda: bytearray({150 * MIB}))
said["beyond"] = tried(lambda: bytearray({200 * MIB + ADDRESS_SPACE_HEADROOM_BYTES}))
"""
    found = attempt(trial, memory=200 * MIB)
    assert found["said"] == {"within": "done", "beyond": "MemoryError"}
    assert any("bytes of address space" in it for it in found["done"])


def test_nothing_that_the_kernel_refuses_ends_the_runner(attempt):
    slot = {"runner": {"nice": 5, "cpus": [4000]}}
    before = f"{NO_NAMESPACES}\n{NO_LANDLOCK}\nos.nice = refuse"
    lacking = " ".join(attempt("", before=before, slot=slot)["lacking"])
    for words in ("no network: not so", "read-only: not so", "nice 5: not so", "CPUs 4000: not so"):
        assert words in lacking


def test_nice_and_cpus_are_as_configured(attempt):
    cpu = min(os.sched_getaffinity(0))
    trial = "said.update(nice=os.nice(0), cpus=list(os.sched_getaffinity(0)))"
    found = attempt(trial, slot={"runner": {"nice": 7, "cpus": [cpu]}})
    assert found["said"] == {"nice": os.nice(0) + 7, "cpus": [cpu]}
    assert {"nice 7", f"CPUs {cpu}", "no core dumps"} <= set(found["done"])


def test_a_failed_allocation_is_named(tmp_path):
    assert in_words("std::bad_alloc", 7) == "memory: beyond its limit of 7 bytes: std::bad_alloc"
    assert in_words("std::bad_alloc", 0) == "std::bad_alloc"
    assert in_words("no such operator", 7) == "no such operator"


def test_the_default_cap_is_a_share_of_the_devices_memory(tmp_path):
    slot = {"source": {"kind": "replay", "path": "/s.csv"}}
    document = {"device_id": "d", "state_dir": str(tmp_path), "controller_url": "http://127.0.0.1"}
    config = AgentConfig.model_validate({**document, "slots": {"a": slot, "b": slot}})
    assert with_memory_limit(config, 1000).limits.runner_memory_max_bytes == 375
    assert with_memory_limit(config, 0).limits.runner_memory_max_bytes == 0, "it is not known"
    limits = config.limits.model_copy(update={"runner_memory_max_bytes": 9})
    own = config.model_copy(update={"limits": limits})
    assert with_memory_limit(own, 1000).limits.runner_memory_max_bytes == 9
    assert with_memory_limit(config, 1000).limits.core().runner_memory_max_bytes == 375
    assert RunnerConfig().network == "auto"
