"""The RunnerHost port's contract: real processes with a real model, a fleet's runners that share
one worker, and virtual runners."""

import asyncio
import queue
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    RunnerExited,
    RunnerLoading,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.ports import RunnerSaid
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.manifest import Golden
from edgeloop_protocol.messages import ShadowBudget
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.runners import RunnerTerms, SharedRunners
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.virtual.device.runner import RunnerWorld
from edgeloop_simulators.virtual.device.runners import VirtualRunners
from edgeloop_simulators.virtual.kernel.clock import VirtualClock
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.spec.world import AgentTiming, DeviceSpec

pytestmark = pytest.mark.e2e

WINDOW_S = 0.4


class RealCase:
    def __init__(self, directory):
        np.savetxt(directory / "in.csv", np.ones((50, 3)), delimiter=",", header="a,b,c")
        source = {"kind": "replay", "path": str(directory / "in.csv"), "rate_hz": 50}
        config = AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": str(directory),
                "controller_url": "http://127.0.0.1:1",
                "telemetry": {"window_s": WINDOW_S, "sample_fraction": 0.0},
                "slots": {"main": {"source": source}},
            }
        )
        self.disk = OsDisk(directory)
        self.words = queue.Queue()
        self.host = RunnerProcesses(config, self.disk, self.words.put)

    def behaves(self, package, problem=""):
        """It is the model itself that does."""

    def next(self, timeout_s=20.0):
        """The next word, or None."""
        try:
            return self.words.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self):
        self.host.stop_all(kill=True)
        deadline = time.monotonic() + 10
        while self.host.alive() and time.monotonic() < deadline:
            time.sleep(0.01)


class Asked:
    """An object of another thread's loop, each of whose methods is called there."""

    def __init__(self, loop, made):
        self._loop, self._made = loop, made

    def __getattr__(self, name):
        async def call(*arguments, **named):
            return getattr(self._made, name)(*arguments, **named)

        return lambda *arguments, **named: asyncio.run_coroutine_threadsafe(
            call(*arguments, **named), self._loop
        ).result(20)


class SharedCase:
    """One device of a fleet, on a loop of its own."""

    def __init__(self, directory):
        examples = directory / "examples.npy"
        np.save(examples, np.ones((50, 3), dtype=np.float32))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.disk, self.words = MemoryDisk(), queue.Queue()
        self.inference = SharedInference(examples)
        terms = RunnerTerms(examples_per_s=50, window_s=WINDOW_S, beat_s=1.0)
        self.runners = SharedRunners(self.inference, SystemClock(), terms)
        self.running = asyncio.run_coroutine_threadsafe(self.runners.run(), self.loop)
        self.host = Asked(self.loop, self.runners.host("dev1", self.disk, self.words.put))

    behaves = RealCase.behaves
    next = RealCase.next

    def close(self):
        self.running.cancel()
        asyncio.run_coroutine_threadsafe(self.runners.close(), self.loop).result(20)
        self.inference.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class VirtualCase:
    def __init__(self):
        self.loop, self.disk, self.words = EventLoop(), MemoryDisk(), []
        self.behaviours = {}
        silent = SimpleNamespace(
            runner_started=lambda _runner: None,
            runner_serves=lambda _runner: None,
            runner_exited=lambda _runner, _why: None,
            window_closed=lambda _runner, _window: None,
        )
        world = RunnerWorld(
            loop=self.loop,
            device=DeviceSpec("dev1"),
            timing=AgentTiming(progress_s=0.2, window_s=WINDOW_S, examples_per_s=50.0),
            behaviours=self.behaviours,
            disk=self.disk,
            clock=VirtualClock(self.loop, 0.0),
            luck=Streams(1).stream("runners"),
            post=self.words.append,
            watcher=silent,
        )
        self.host = VirtualRunners(world)

    def behaves(self, package, problem=""):
        fails_on = frozenset({"x86_64"}) if problem else frozenset()
        model = SyntheticModel(labels=2, features=3, bins=4, self_test_fails_on=fails_on)
        self.behaviours[package.manifest.digest()] = model

    def next(self, timeout_s=20.0):
        until_s = self.loop.now_s + timeout_s
        while not self.words and self.loop.step(until_s):
            pass
        return self.words.pop(0) if self.words else None

    def close(self):
        self.host.all_killed()


@pytest.fixture(params=["processes", "shared", "virtual"])
def case(request, tmp_path):
    real = {"processes": RealCase, "shared": SharedCase}.get(request.param)
    made = real(tmp_path) if real else VirtualCase()
    yield made
    made.close()


def put(case, package, problem=""):
    digest = package.manifest.digest()
    store = ModelStore(case.disk)
    store.put_manifest(digest, package.manifest.canonical())
    with case.disk.open(model_path(digest)) as file:
        file.write(package.model)
    case.behaves(package, problem)


def start(case, package, shadow=None, number=1):
    case.host.start(
        StartRunner("main", number, package.offer.ref, shadow.offer.ref if shadow else None)
    )


def hear(case, kind, where=lambda _word: True):
    """The next word of this kind, and those before it."""
    before = []
    while True:
        word = case.next()
        assert word is not None, f"no {kind.__name__} after {before}"
        if isinstance(word, kind) and where(word):
            return word, before
        before.append(word)


def serve(case, package, shadow=None):
    put(case, package)
    if shadow:
        put(case, shadow)
    start(case, package, shadow)
    assert hear(case, RunnerSelfTested)[0].passed
    case.host.go("main", 1)
    hear(case, RunnerServing)


def windows_in(words):
    return [w.body for w in words if isinstance(w, RunnerSaid) and w.body.kind == "window"]


def test_it_says_its_self_test_beats_and_waits_for_its_turn(case, make_package):
    put(case, make_package())
    start(case, make_package())
    tested, before = hear(case, RunnerSelfTested)
    assert (tested.slot, tested.runner, tested.passed) == ("main", 1, True)
    assert before in ([], [RunnerLoading("main", 1)])
    beat, before = hear(case, RunnerProgressed)
    assert beat.progress.examples == 0
    assert not any(isinstance(word, RunnerServing) for word in before)
    case.host.go("main", 1)
    assert hear(case, RunnerServing)[0].runner == 1
    assert case.host.alive() == 1


def test_it_beats_and_counts_what_it_answered(case, make_package):
    serve(case, make_package())
    first, _ = hear(case, RunnerProgressed, lambda word: word.progress.examples > 0)
    more, _ = hear(case, RunnerProgressed, lambda w: w.progress.examples > first.progress.examples)
    assert more.progress.errors == more.progress.nonfinite == 0
    assert more.progress.latency_p95_us > 0
    assert more.progress.memory_bytes > 0


def test_a_window_is_of_the_version_and_counts_each_example_once(case, make_package):
    package = make_package()
    serve(case, package)
    said, _ = hear(case, RunnerSaid, lambda word: word.body.count > 0)
    window = said.body
    assert window.version == package.offer.ref
    assert sum(window.predictions) == window.count
    assert sum(window.confidence) == window.count
    assert [sum(feature) for feature in window.features] == [window.count] * 3
    assert window.comparison is None


def test_a_version_in_shadow_is_compared_until_it_is_dropped(case, make_package):
    old = make_package("old")
    serve(case, make_package("new"), shadow=old)
    compared, _ = hear(case, RunnerSaid, lambda word: word.body.count > 0)
    assert compared.body.comparison.shadow == old.offer.ref
    assert compared.body.comparison.count == compared.body.count
    case.host.drop_shadow("main", 1)
    hear(case, RunnerSaid, lambda word: word.body.comparison is None and word.body.count > 0)


def test_asked_to_stop_it_says_its_last_window_and_ends_once(case, make_package):
    serve(case, make_package())
    hear(case, RunnerProgressed, lambda word: word.progress.examples > 0)
    case.host.stop("main", 1, kill=False)
    exited, before = hear(case, RunnerExited)
    assert windows_in(before)
    assert exited.detail.startswith("exit status 0")
    assert case.next(1.0) is None, "nothing is said after the end"
    assert case.host.alive() == 0


def test_killed_it_ends_at_once_and_says_by_what(case, make_package):
    serve(case, make_package())
    case.host.stop("main", 1, kill=True)
    exited, _ = hear(case, RunnerExited)
    assert "SIGKILL" in exited.detail
    assert case.host.alive() == 0


def test_files_that_are_not_the_versions_are_not_loaded(case, make_package):
    """EL-INV-2."""
    package = make_package()
    put(case, package)
    with case.disk.open(model_path(package.manifest.digest()), append=True) as file:
        file.write(b"more")
    start(case, package)
    tested, _ = hear(case, RunnerSelfTested)
    assert not tested.passed
    assert "model" in tested.detail
    hear(case, RunnerExited)


def test_a_manifest_that_is_not_there_is_said(case, make_package):
    package = make_package()
    put(case, package)
    case.disk.remove(manifest_path(package.manifest.digest()))
    start(case, package)
    assert not hear(case, RunnerSelfTested)[0].passed
    hear(case, RunnerExited)


def test_failed_golden_examples_are_said_and_it_waits_to_be_stopped(case, make_package):
    golden = Golden(inputs=((1.0, 2.0, 3.0),), outputs=((0.123, 0.877),))
    package = make_package(golden=golden)
    put(case, package, problem="golden")
    start(case, package)
    tested, _ = hear(case, RunnerSelfTested)
    assert not tested.passed
    assert "golden" in tested.detail
    hear(case, RunnerProgressed)
    assert case.host.alive() == 1
    case.host.stop("main", 1, kill=False)
    hear(case, RunnerExited)


def challenge(case, package, budget=None, number=2):
    put(case, package)
    budget = budget or ShadowBudget(cpu_fraction=1.0)
    case.host.start(StartRunner("main", number, package.offer.ref, None, budget=budget))
    tested, _ = hear(case, RunnerSelfTested, lambda word: word.runner == number)
    assert tested.passed
    case.host.mirror("main", 1, number)
    serving, _ = hear(case, RunnerServing, lambda word: word.runner == number)
    return serving


def is_shadow(word):
    return word.body.kind == "shadow"


def test_a_challenger_sees_what_the_champion_answers_and_tells_it_apart(case, make_package):
    """EL-SHADOW-1, EL-SHADOW-4."""
    champion, challenger = make_package("champion"), make_package("challenger")
    serve(case, champion)
    challenge(case, challenger)
    said, before = hear(case, RunnerSaid, lambda w: is_shadow(w) and w.body.window.count > 0)
    assert said.body.champion == champion.offer.ref
    assert said.body.window.version == challenger.offer.ref
    assert said.body.disagreements <= said.body.window.count
    assert sum(said.body.window.predictions) == said.body.window.count
    assert said.body.window.comparison is None
    assert said.body.window.sketches is None
    told, more = hear(case, RunnerSaid, lambda w: not is_shadow(w) and w.body.count > 0)
    assert told.body.version == champion.offer.ref, "who answers is the champion still"
    words = [w for w in (*before, *more) if isinstance(w, RunnerSaid)]
    assert {w.body.version for w in words if w.body.kind == "window"} <= {champion.offer.ref}
    assert not [w for w in words if w.body.kind == "sample"]
    case.host.stop("main", 2, kill=False)
    exited, before = hear(case, RunnerExited)
    assert exited.runner == 2
    assert any(isinstance(w, RunnerSaid) and is_shadow(w) for w in before), "its last window"
    hear(case, RunnerProgressed, lambda word: word.runner == 1)


def test_a_challenger_that_is_killed_leaves_the_champion_as_it_was(case, make_package):
    """EL-SHADOW-2."""
    serve(case, make_package("champion"))
    challenge(case, make_package("challenger"))
    case.host.stop("main", 2, kill=True)
    exited, _ = hear(case, RunnerExited)
    assert exited.runner == 2
    beat, _ = hear(case, RunnerProgressed, lambda word: word.runner == 1)
    seen = beat.progress.examples
    hear(case, RunnerProgressed, lambda w: w.runner == 1 and w.progress.examples > seen)


def test_a_challenger_without_its_champion_beats_and_sees_nothing(case, make_package):
    serve(case, make_package("champion"))
    challenge(case, make_package("challenger"))
    case.host.stop("main", 1, kill=True)
    hear(case, RunnerExited)
    beats = [hear(case, RunnerProgressed, lambda word: word.runner == 2)[0] for _ in range(3)]
    assert beats[-1].progress.examples == beats[-2].progress.examples
    case.host.stop("main", 2, kill=False)
    exited, _ = hear(case, RunnerExited)
    assert exited.detail.startswith("exit status 0")
