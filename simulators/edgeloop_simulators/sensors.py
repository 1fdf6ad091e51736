"""Sensors: play recordings into each device's Unix socket, and take its answers.

One asyncio loop in one thread hosts a socket per device. A connected runner is sent one example a
line at the set rate, and answers on the same connection; a runner that comes later (the next
version) goes on where the last one left off. Invariants: an example that cannot be sent at its
time is skipped, as a real sensor's would be, so nothing queues up; a line is bounded.
"""

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from edgeloop_simulators.datasets.windows import Floats, Portion, Window, play
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.truth import Truth

ANSWER_MAX_BYTES: Final = 64 * 1024
UNSENT_MAX_BYTES: Final = 256 * 1024
SOCKET_PATH_MAX_BYTES: Final = 107  # sun_path of unix(7), less its NUL
START_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Fault:
    """What a broken sensor makes of the raw values of `columns`."""

    columns: tuple[int, ...]
    kind: str
    value: float

    def apply(self, values: Floats, rng: np.random.Generator) -> Floats:
        broken = values.copy()
        for column in self.columns:
            if self.kind == "stuck":
                broken[..., column] = self.value
            elif self.kind == "gain":
                broken[..., column] *= self.value
            else:
                broken[..., column] += rng.normal(0, self.value, broken[..., column].shape)
        return broken


class Sensor:
    """One device's sensors: what it is played next. Used from the loop's thread only."""

    def __init__(self, portion: Portion, block: int, seed: int) -> None:
        self.device_id = portion.device_id
        self.fault: Fault | None = None
        self.phase = "before"
        rng = Random(f"{seed}:{portion.device_id}")  # noqa: S311 - a replayable shuffle
        self._noise = np.random.default_rng(rng.getrandbits(32))
        self._streams: dict[str, Iterator[Window]] = {
            "before": play(portion.before, block, rng),
            "after": play(portion.after, block, rng),
        }
        self._lines: dict[tuple[str, Fault | None], bytes] = {}

    def next(self) -> tuple[Window, bytes]:
        """The next window and its line on the socket."""
        window = next(self._streams[self.phase])
        key = (window.reference, self.fault)
        line = self._lines.get(key)
        if line is None:
            values = self.fault.apply(window.values, self._noise) if self.fault else window.values
            document = {"reference": window.reference, "values": np.round(values, 5).tolist()}
            line = self._lines[key] = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        return window, line


class SensorBank:
    """All devices' sensors: `start`, change the world or break one at will, `stop`."""

    def __init__(
        self,
        portions: Iterable[Portion],
        truth: Truth,
        socket_directory: Path,
        *,
        examples_per_s: float,
        block_windows: int,
        seed: int,
    ) -> None:
        self._sensors = {p.device_id: Sensor(p, block_windows, seed) for p in portions}
        self._truth = truth
        self._directory = socket_directory
        self._period_s = 1 / examples_per_s
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._silent = False
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)

    def path(self, device_id: str) -> Path:
        """The device's socket. Raises SimulatorError when it is too long for a socket's name."""
        path = self._directory / f"{list(self._sensors).index(device_id)}.sock"
        if len(str(path).encode()) > SOCKET_PATH_MAX_BYTES:
            raise SimulatorError(f"socket path {path} is too long: set TMPDIR to a shorter one")
        return path

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S) or self._failure:
            raise SimulatorError(f"the sensors did not start: {self._failure}")

    def change_world(self, device_ids: Iterable[str]) -> None:
        for device_id in device_ids:
            sensor = self._sensors[device_id]
            self._loop.call_soon_threadsafe(setattr, sensor, "phase", "after")

    def break_sensor(self, device_id: str, fault: Fault) -> None:
        self._loop.call_soon_threadsafe(setattr, self._sensors[device_id], "fault", fault)

    def silence(self) -> None:
        """Play no more; answers that are still under way are taken."""
        self._loop.call_soon_threadsafe(setattr, self, "_silent", True)

    def stop(self) -> None:
        if self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(START_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # the starter waits for it and says it
            self._failure = error
            self._ready.set()
            raise
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        servers = [
            await asyncio.start_unix_server(
                partial(self._connected, sensor),
                self.path(device_id),
                limit=ANSWER_MAX_BYTES,
            )
            for device_id, sensor in self._sensors.items()
        ]
        self._ready.set()
        await self._stopping.wait()
        for server in servers:
            server.close()
        for pump in self._pumps.values():
            pump.cancel()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(
        self, sensor: Sensor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The newest connection is the one that is played to; an older one only drains."""
        if earlier := self._pumps.get(sensor.device_id):
            earlier.cancel()
        pump = asyncio.create_task(self._pump(sensor, writer))
        self._pumps[sensor.device_id] = pump
        try:
            while line := await reader.readline():
                self._take(sensor.device_id, line)
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # it went away, sent a line above ANSWER_MAX_BYTES, or the sensors stop
        finally:
            pump.cancel()
            writer.close()

    def _take(self, device_id: str, line: bytes) -> None:
        try:
            document: Any = json.loads(line)
        except ValueError:
            return
        if isinstance(document, dict):
            self._truth.answered(device_id, document)

    async def _pump(self, sensor: Sensor, writer: asyncio.StreamWriter) -> None:
        due = self._loop.time()
        while not writer.is_closing():
            window, line = sensor.next()
            unsent = writer.transport.get_write_buffer_size()
            if not self._silent and unsent < UNSENT_MAX_BYTES:
                self._truth.played(sensor.device_id, window, sensor.phase, sensor.fault is not None)
                writer.write(line)
            due = max(due + self._period_s, self._loop.time() - self._period_s)
            await asyncio.sleep(due - self._loop.time())
