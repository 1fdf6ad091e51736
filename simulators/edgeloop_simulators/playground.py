"""A small real fleet on this machine, to try things on: from a notebook, or any Python.

    with Playground() as world:
        fleet = Fleet(world.url)

One controller with its embedded broker and a real agent for each watch, which plays recordings of
a person whom no training data shows. Invariants: everything listens on loopback and keeps its files
in one temporary directory; `close` leaves nothing behind, and the kernel ends what a killed process
left.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import pyarrow as pa

from edgeloop_simulators.console import Console
from edgeloop_simulators.datasets.watch import load_watch
from edgeloop_simulators.datasets.windows import windows_table
from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.fleet import Fleet
from edgeloop_simulators.output import socket_directory
from edgeloop_simulators.scenario import Telemetry, WatchData, load_scenario
from edgeloop_simulators.sensors import SensorBank
from edgeloop_simulators.truth import Truth

PEOPLE: Final = (1, 3, 8)
WINDOW_S: Final = 2.0
SAMPLE_FRACTION: Final = 0.2
EXAMPLES_PER_S: Final = 15.0
"""Each is two seconds of movement: played faster than life."""
READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1


class Playground(AbstractContextManager["Playground"]):
    """The controller and its watches: two a person, of `people`; they answer once a model comes."""

    def __init__(self, people: Sequence[int] = PEOPLE, seed: int = 0) -> None:
        scenario = load_scenario("watch").scenario.model_copy(
            update={"telemetry": Telemetry(window_s=WINDOW_S, sample_fraction=SAMPLE_FRACTION)}
        )
        assert isinstance(scenario.data, WatchData)
        data = scenario.data.model_copy(update={"device_people": tuple(people)})
        self._dataset = load_watch(data)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeloop-")))
            portions = self._dataset.portions
            sockets = stack.enter_context(socket_directory(directory, len(portions)))
            truth = Truth(directory)
            stack.callback(truth.close)
            self._fleet = Fleet(directory, scenario)
            stack.callback(self._fleet.stop)
            console = stack.enter_context(Console(self._fleet.url))
            self._sensors = SensorBank(
                portions,
                truth,
                sockets,
                examples_per_s=EXAMPLES_PER_S,
                block_windows=scenario.devices.block_windows,
                seed=seed,
            )
            stack.callback(self._sensors.stop)
            self._fleet.start_controller(None, console.ready, READY_WITHIN_S)
            self._sensors.start()
            for number, portion in enumerate(portions):
                labels = {
                    name: of[number % len(of)] for name, of in scenario.devices.labels.items()
                }
                path = self._sensors.path(portion.device_id)
                self._fleet.start_agent(portion.device_id, path, labels)
            self._wait_for_devices(console)
            self._taken_down = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything, and remove its files."""
        self._taken_down.close()

    @property
    def url(self) -> str:
        """Of the controller."""
        return self._fleet.url

    @property
    def device_ids(self) -> tuple[str, ...]:
        return tuple(portion.device_id for portion in self._dataset.portions)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a watch makes features of what it measures, as model.toml says it."""
        return self._dataset.preprocessing.model_dump(mode="json")

    def recordings(self, part: Literal["train", "baseline"] = "train") -> pa.Table:
        """Of people who wear no watch of this fleet, on the right wrist: a row a window, a column a
        feature, then `label` and `group` (the person). Windows of `baseline` do not overlap."""
        windows = self._dataset.base if part == "train" else self._dataset.baseline
        return windows_table(self._dataset, windows).drop_columns(["reference"])

    def move_to_the_left_wrist(self, device_ids: Sequence[str] | None = None) -> None:
        """The world changes: these watches, or all, are worn on the other side from now on."""
        self._sensors.change_world(device_ids or self.device_ids)

    def _wait_for_devices(self, console: Console) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while sum(bool(one["online"]) for one in console.devices()) < len(self.device_ids):
            self._fleet.check()
            if time.monotonic() > deadline:
                raise FleetError(f"not every device said hello in {READY_WITHIN_S:.0f} s")
            time.sleep(POLL_S)
