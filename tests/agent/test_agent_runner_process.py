"""A real runner process, and the adapter that starts it, over a sensor's Unix socket."""

import json
import os
import queue
import signal
import socket
import time
from pathlib import Path

import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.errors import StateDirInUseError
from edgeloop_agent.ports import RunnerSaid
from edgeloop_agent.runner.confinement import ADDRESS_SPACE_HEADROOM_BYTES
from edgeloop_agent.shell.bounded_log import FILE_MAX_BYTES, BoundedLog
from edgeloop_agent.shell.lock import StateDirLock, is_locked
from edgeloop_agent.shell.model_store import ModelStore, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_log import Tail
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_protocol.limits import MIB
from edgeloop_protocol.manifest import Preprocessing, Requirements

pytestmark = pytest.mark.e2e


class Rig:
    """A sensor's server, a store, and a host of runners whose words are kept."""

    def __init__(self, directory, slot=None):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(directory / "s.sock"))
        self.server.listen(1)
        self.server.settimeout(20)
        self.config = AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": str(directory),
                "controller_url": "http://127.0.0.1:1",
                "telemetry": {"window_s": 0.3, "sample_fraction": 1.0, "sketch_every": 1},
                "slots": {
                    "main": slot
                    or {
                        "source": {"kind": "socket", "path": str(directory / "s.sock")},
                        "sink": {"kind": "socket"},
                    }
                },
            }
        )
        self.disk = OsDisk(directory)
        self.store = ModelStore(self.disk)
        self.words = queue.Queue()
        self.said = []
        self.host = RunnerProcesses(self.config, self.disk, self.words.put)

    def put(self, package):
        digest = package.manifest.digest()
        self.store.put_manifest(digest, package.manifest.canonical())
        self.disk.path(model_path(digest)).write_bytes(package.model)

    def start(self, package, shadow=None, number=1):
        for each in (package, shadow):
            if each:
                self.put(each)
        ref = shadow.offer.ref if shadow else None
        self.host.start(StartRunner("main", number, package.offer.ref, ref))

    def hear(self, kind, where=lambda word: True):
        """The next word of this kind; those before it are kept in `said`."""
        deadline = time.monotonic() + 20
        while True:
            word = self.words.get(timeout=max(0.01, deadline - time.monotonic()))
            self.said.append(word)
            if isinstance(word, kind) and where(word):
                return word

    def serve(self, package, shadow=None):
        self.start(package, shadow)
        assert self.hear(RunnerSelfTested).passed
        self.host.go("main", 1)
        self.hear(RunnerServing)
        self.peer, _ = self.server.accept()
        self.peer.settimeout(20)
        self.answers = self.peer.makefile("rb")

    def ask(self, line):
        self.peer.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        return json.loads(self.answers.readline())

    def pid(self):
        return self.host._child("main", 1).process.pid

    def bodies(self, kind):
        return [w.body for w in self.said if isinstance(w, RunnerSaid) and w.body.kind == kind]

    def close(self):
        self.host.stop_all(kill=True)
        deadline = time.monotonic() + 10
        while self.host.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not self.host.alive()
        self.server.close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


def test_answers_windows_samples_and_a_clean_end(rig, make_package):
    package = make_package("2")
    rig.serve(
        package, shadow=make_package("1", weights=[[-1, 1], [0.5, 0.5], [1, -1]], golden=None)
    )
    answer = rig.ask({"reference": "r1", "values": [1.0, 0.0, -1.0]})
    assert answer["reference"] == "r1"
    assert answer["label"] == "left"
    assert answer["version"] == "tiny@2"
    assert answer["manifest_digest"] == package.manifest.digest()
    assert 0.5 < answer["confidence"] <= 1
    assert "error" in rig.ask({"reference": "r2", "values": [1.0]})
    assert "error" in rig.ask(b"rubbish\n")
    assert "over" in rig.ask(b"x" * (1024 * 1024 + 10) + b"\n")["error"]
    rig.peer.sendall(b'{"reference": "r3", "values": [-1, 0, 1]}\n')
    rig.host.stop("main", 1, kill=False)
    assert json.loads(rig.answers.readline())["reference"] == "r3", "what had arrived is answered"
    assert rig.hear(RunnerExited).detail == "exit status 0"
    windows = rig.bodies("window")
    assert sum(window.count for window in windows) == 2
    assert sum(window.errors for window in windows) == 3
    assert sum(w.comparison.count for w in windows if w.comparison) == 2
    assert sum(w.comparison.disagreements for w in windows if w.comparison) == 2
    assert {sample.reference for sample in rig.bodies("sample")} == {"r1", "r3"}
    assert rig.bodies("sample")[0].shadow_prediction == 1
    assert [event.name for event in rig.bodies("event")] == ["no_answer"], "the first, in words"


def test_a_runner_is_confined_before_it_loads_and_says_so(rig, make_package):
    rig.serve(make_package(requires=Requirements(memory_bytes=300 * MIB)))
    pid = rig.pid()
    told = rig.host.confinement()["main"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if "core file size" in line)
    assert core.split()[4] == "0"
    for what, is_so in {
        "no network: network namespace": namespace(pid, "net") != namespace("self", "net"),
        "model folder read-only: mount namespace": any(
            f" {rig.disk.path('models')} ro" in line
            for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        ),
    }.items():
        assert any(one.startswith(what) for one in told.done) == is_so
    words = " ".join((*told.done, *told.lacking))
    for what in ("no network", "model folder read-only", "memory", "no core dumps"):
        assert what in words


def namespace(pid, kind):
    return Path(f"/proc/{pid}/ns/{kind}").readlink()


def test_a_runner_has_its_memory_limit_above_what_its_runtime_takes(rig, make_package):
    rig.put(make_package())
    ref = make_package().offer.ref
    rig.host.start(StartRunner("main", 1, ref, None, memory_max_bytes=120 * MIB))
    assert rig.hear(RunnerSelfTested).passed, "a legit model never hits it"
    limits = Path(f"/proc/{rig.pid()}/limits").read_text()
    line = next(line for line in limits.splitlines() if "address space" in line)
    bound = int(line.split()[3])
    size = int(Path(f"/proc/{rig.pid()}/statm").read_text().split()[0]) * 4096
    assert size + 100 * MIB < bound < size + 120 * MIB + ADDRESS_SPACE_HEADROOM_BYTES


def test_nan_is_answered_as_an_error_and_counted(rig, make_package):
    package = make_package(nan=True, golden=None)
    rig.serve(package)
    answer = rig.ask({"reference": "r", "values": [1, 2, 3]})
    assert answer["error"] == "the model gave NaN or Inf"
    assert answer["manifest_digest"] == package.manifest.digest(), "who gave no answer is said"
    assert "label" not in answer
    assert rig.hear(RunnerProgressed, lambda w: w.progress.nonfinite).progress.examples == 0


def test_a_finite_but_huge_example_is_refused_and_the_runner_goes_on(rig, make_package):
    windowed = Preprocessing(
        kind="window_statistics", rows=2, channels=("x", "y", "z"), statistics=("rms",)
    )
    features = tuple({"name": name, "sensor": "s"} for name in windowed.feature_names())
    rig.serve(make_package(preprocessing=windowed, features=features, golden=None))
    assert "too large" in rig.ask({"reference": "r", "values": [[1e30] * 3] * 2})["error"]
    assert "label" in rig.ask({"reference": "r", "values": [[1, 2, 3]] * 2})
    progress = rig.hear(RunnerProgressed, lambda w: w.progress.source_errors).progress
    assert (progress.source_errors, progress.errors, progress.nonfinite) == (1, 0, 0)


def test_heartbeats_come_while_nothing_arrives_and_stop_when_it_hangs(rig, make_package):
    rig.serve(make_package())
    for _ in range(2):
        rig.hear(RunnerProgressed)
    os.kill(rig.pid(), signal.SIGSTOP)
    rig.host.stop("main", 1, kill=True)
    assert rig.hear(RunnerExited).detail.startswith("killed by SIGKILL")


def test_a_replay_file_that_is_missing_is_said_and_waited_for(tmp_path, make_package):
    path = tmp_path / "stream.csv"
    rig = Rig(tmp_path, {"source": {"kind": "replay", "path": str(path)}})
    try:
        rig.start(make_package())
        rig.hear(RunnerSelfTested)
        rig.host.go("main", 1)
        told = rig.hear(RunnerProgressed, lambda word: word.progress.source_problem)
        assert "cannot play" in told.progress.source_problem
        path.write_text("1,2,3\n")
        rig.hear(RunnerServing)
        assert rig.hear(RunnerProgressed, lambda w: w.progress.examples).progress.errors == 0
        assert not any(isinstance(word, RunnerExited) for word in rig.said)
    finally:
        rig.close()


def test_what_cannot_be_loaded_is_said_before_the_end(rig, make_package):
    rig.start(make_package(model=b"not a model"))
    tested = rig.hear(RunnerSelfTested)
    assert not tested.passed
    assert "onnxruntime cannot load it" in tested.detail
    assert rig.hear(RunnerExited).detail.startswith("exit status 1")


def test_a_stop_that_comes_with_the_start_is_not_lost(rig, make_package):
    rig.start(make_package())
    rig.host.stop("main", 1, kill=False)
    assert rig.hear(RunnerExited).detail == "exit status 0"


def test_a_runner_ends_when_its_supervisors_end_closes(rig, make_package):
    rig.serve(make_package())
    rig.host._child("main", 1).connection.shutdown(socket.SHUT_RDWR)
    rig.hear(RunnerExited)


def test_the_runner_log_is_bounded(tmp_path):
    log, tail = BoundedLog(tmp_path / "runner-main.log"), Tail()
    for number in range(300):
        chunk = b"x" * 10_000 + f"line {number}\n".encode()
        log.write(chunk)
        tail.write(chunk)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) <= 2
    assert sum(sizes) <= 2 * FILE_MAX_BYTES + 2 * 10_100
    assert tail.last_line().endswith("line 299")


def test_one_lock_a_state_directory(tmp_path):
    assert not is_locked(tmp_path)
    lock = StateDirLock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(StateDirInUseError, match=f"pid {os.getpid()}.*another state_dir"):
        StateDirLock(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)
