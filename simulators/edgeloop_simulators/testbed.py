"""A run's parts, put together and taken down: the composition root of the testbed.

Invariants: what is started is stopped, in every way that a run can end (done, a missed deadline,
Ctrl-C, SIGTERM, an exception).
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from edgeloop_simulators.annotator import Annotator
from edgeloop_simulators.console import Console
from edgeloop_simulators.datasets.tabular import load_tabular
from edgeloop_simulators.datasets.watch import load_watch
from edgeloop_simulators.datasets.windows import Dataset
from edgeloop_simulators.fleet import Fleet
from edgeloop_simulators.output import output_directory, socket_directory
from edgeloop_simulators.scenario import Loaded, Scenario, WatchData
from edgeloop_simulators.sensors import SensorBank
from edgeloop_simulators.truth import Truth

log = logging.getLogger(__name__)

SCORES_EVERY_S: Final = 2.0


class Interrupted(Exception):  # noqa: N818 - not an error: somebody wants it to end
    """Ctrl-C, SIGTERM or SIGHUP."""


@dataclass
class Testbed:
    """The parts that the story works with. `seed` replays the same world."""

    loaded: Loaded
    seed: int
    directory: Path
    dataset: Dataset
    truth: Truth
    fleet: Fleet
    console: Console
    sensors: SensorBank
    annotator: Annotator
    published: dict[str, str] = field(default_factory=dict)
    """What a version is (first, retrained, permuted, nan) to its manifest digest."""

    @property
    def scenario(self) -> Scenario:
        return self.loaded.scenario

    @property
    def device_ids(self) -> tuple[str, ...]:
        return tuple(portion.device_id for portion in self.dataset.portions)

    def labels_of(self, device_id: str) -> dict[str, str]:
        """Labels are dealt to the devices in turn."""
        at = self.device_ids.index(device_id)
        dealt = self.scenario.devices.labels
        return {name: values[at % len(values)] for name, values in dealt.items()}


def load_dataset(loaded: Loaded) -> Dataset:
    """Raises DatasetError."""
    data = loaded.scenario.data
    if isinstance(data, WatchData):
        return load_watch(data)
    return load_tabular(data, loaded.resolve)


@contextmanager
def testbed(loaded: Loaded, out: Path, seed: int) -> Iterator[Testbed]:
    """Nothing runs yet but the annotator's and the score keeper's threads, once asked to."""
    dataset = load_dataset(loaded)
    scenario = loaded.scenario
    with ExitStack() as stack:
        directory = stack.enter_context(output_directory(out))
        stack.enter_context(interruptible())
        sockets = stack.enter_context(socket_directory(directory, len(dataset.portions)))
        truth = Truth(directory)
        stack.callback(truth.close)
        fleet = Fleet(directory, scenario)
        stack.callback(fleet.stop)
        console = stack.enter_context(Console(fleet.url))
        sensors = SensorBank(
            dataset.portions,
            truth,
            sockets,
            examples_per_s=scenario.devices.examples_per_s,
            block_windows=scenario.devices.block_windows,
            seed=seed,
        )
        stack.callback(sensors.stop)
        annotator = Annotator(console, truth.label_of, scenario.annotator, seed)
        stack.callback(annotator.stop)
        keeper = ScoreKeeper(console, directory / "scores.jsonl")
        stack.callback(keeper.stop)
        keeper.start()
        yield Testbed(loaded, seed, directory, dataset, truth, fleet, console, sensors, annotator)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted, once, so that all is taken down in order."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for one in numbers:  # a second Ctrl-C shall not break the taking down
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ScoreKeeper:
    """Writes down the drift scores that the controller shows, for the report."""

    def __init__(self, console: Console, path: Path) -> None:
        self._console, self._path = console, path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scores", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        with self._path.open("w", encoding="utf-8") as file:
            while not self._stopping.wait(SCORES_EVERY_S):
                for line in self._scores():
                    file.write(json.dumps({"at": time.time()} | line) + "\n")
                file.flush()

    def _scores(self) -> list[dict[str, Any]]:
        try:
            scores = self._console.drift_scores()
        except Exception as error:  # the controller is not there yet, or no more
            log.debug("no scores: %s", error)
            return []
        kept = ("scope", "key", "score", "threshold", "examples", "cause", "sensor")
        return [
            {name: score[name] for name in kept}
            | {"manifest_digest": score["version"] and score["version"]["manifest_digest"]}
            for score in scores
        ]
