"""Runners without processes, for thousands of updates: each looks at its files, passes its
self-test when they are whole, and serves.

Invariants: as every RunnerHost's; one thread says everything.
"""

import hashlib
import queue
import threading
from dataclasses import dataclass
from typing import Final

from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    Event,
    Progress,
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.ports import Post
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.manifest import parse_manifest

BEAT_S: Final = 0.01
EXAMPLES_A_BEAT: Final = 10


@dataclass(slots=True)
class _Runner:
    slot: str
    number: int
    serves: bool = False
    examples: int = 0


class QuickRunners:
    def __init__(self, disk: OsDisk, post: Post) -> None:
        self._disk = disk
        self._post = post
        self._orders: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._runners: dict[tuple[str, int], _Runner] = {}
        threading.Thread(target=self._run, name="quick-runners", daemon=True).start()

    def start(self, effect: StartRunner) -> None:
        self._runners[effect.slot, effect.runner] = _Runner(effect.slot, effect.runner)
        self._orders.put(("start", effect))

    def go(self, slot: str, runner: int) -> None:
        self._orders.put(("go", (slot, runner)))

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        """There are no challengers."""

    def drop_shadow(self, slot: str, runner: int) -> None:
        """There is none."""

    def capture(self, slot: str, runner: int, examples: int) -> None:
        """There are no examples."""

    def stop(self, slot: str, runner: int, kill: bool) -> None:  # noqa: ARG002 - the port's
        self._orders.put(("stop", (slot, runner)))

    def stop_all(self, kill: bool) -> None:
        for slot, runner in list(self._runners):
            self.stop(slot, runner, kill)

    def alive(self) -> int:
        return len(self._runners)

    def _run(self) -> None:
        while True:
            try:
                order, of = self._orders.get(timeout=BEAT_S)
            except queue.Empty:
                self._beat()
                continue
            for event in self._answers(order, of):
                self._post(event)

    def _answers(self, order: str, of: object) -> list[Event]:
        if isinstance(of, StartRunner):
            problem = self._problem(of.version.manifest_digest)
            return [RunnerSelfTested(of.slot, of.runner, not problem, problem)]
        assert isinstance(of, tuple)
        runner = self._runners.get(of)
        if runner is None:
            return []
        if order == "go":
            runner.serves = True
            return [RunnerServing(runner.slot, runner.number)]
        del self._runners[of]
        return [RunnerExited(runner.slot, runner.number, "exit status 0")]

    def _problem(self, digest: str) -> str:
        try:
            document = self._disk.read(manifest_path(digest))
        except OSError as error:
            return f"no manifest: {error}"
        if hashlib.sha256(document).hexdigest() != digest:
            return "the manifest has other bytes"
        whole = self._disk.digest(model_path(digest)) == parse_manifest(document).artifact.digest
        return "" if whole else "the model is not whole"

    def _beat(self) -> None:
        for runner in list(self._runners.values()):
            if runner.serves:
                runner.examples += EXAMPLES_A_BEAT
                progress = Progress(examples=runner.examples)
                self._post(RunnerProgressed(runner.slot, runner.number, progress))
