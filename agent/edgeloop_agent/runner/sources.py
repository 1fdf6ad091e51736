"""Where examples come from: a file played at its rate, or a Unix socket of a sensor's process.

Invariants: `read` never blocks and gives a bounded number; a malformed example is an Example with
`problem` set, never an exception; a socket that is away is connected to again, for ever.
"""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np

from edgeloop_agent.config import ReplaySource, SocketSource
from edgeloop_agent.errors import DataSetError
from edgeloop_agent.lines import LineSplitter
from edgeloop_agent.runner.inference import Answer, NoAnswer
from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.limits import MIB, REFERENCE_MAX_CHARS
from edgeloop_protocol.preprocessing import Floats

READ_EXAMPLES_MAX: Final = 64
READ_CHUNK_BYTES: Final = 64 * 1024
LINE_MAX_BYTES: Final = 1 * MIB
ANSWER_BACKLOG_MAX_BYTES: Final = 1 * MIB
REPLAY_FILE_MAX_BYTES: Final = 512 * MIB
RECONNECT_S_MAX: Final = 5.0
BEHIND_S_MAX: Final = 1.0
"""A replay that fell behind by more than this goes on from now, instead of rushing."""


class Example(NamedTuple):
    """`begins`: first of its sequence, for a model with a state. `token`: the source's own, given
    back with the answer where the source replies."""

    reference: str
    values: Floats | None
    problem: str = ""
    begins: bool = False
    token: object = None


class SampleSource(Protocol):
    def fileno(self) -> int | None:
        """What to select on for reading; None: nothing, `next_due` says when to read."""

    def next_due(self) -> float | None:
        """When to call `read` even though nothing is readable (monotonic seconds)."""

    @property
    def wants_to_write(self) -> bool:
        """Whether to select on `fileno` for writing, too, and to call `flush` when it is."""

    def flush(self) -> None: ...

    def read(self, now: float) -> list[Example]: ...

    def close(self) -> None: ...


@runtime_checkable
class Replying(Protocol):
    """A source whose examples are each answered to whoever asked."""

    def reply(self, example: Example, answer: Answer | NoAnswer) -> None: ...


class Replay:
    """Plays a table (rows, channels) or an array (examples, rows, channels) at `rate_hz`."""

    def __init__(self, config: ReplaySource, now: float) -> None:
        table = _load(config.path)
        self._is_finite = bool(np.isfinite(table).all())
        self._examples = _windows(table, config)
        self._name = config.path.name
        self._loop = config.loop
        self._period_s = 1.0 / config.rate_hz
        self._due = now
        self._position = 0

    def fileno(self) -> int | None:
        return None

    def next_due(self) -> float | None:
        return None if self._position >= len(self._examples) and not self._loop else self._due

    wants_to_write = False

    def flush(self) -> None:
        """It only reads."""

    def read(self, now: float) -> list[Example]:
        examples: list[Example] = []
        while self._due <= now and len(examples) < READ_EXAMPLES_MAX:
            if self._position >= len(self._examples):
                if not self._loop:
                    break
                self._position = 0
            start, values = self._examples[self._position]
            reference = f"{self._name}#{start}"[-REFERENCE_MAX_CHARS:]
            known = Example(reference, values) if self._is_finite else checked(reference, values)
            examples.append(known)
            self._position += 1
            self._due += self._period_s
        if self._due < now - BEHIND_S_MAX:
            self._due = now
        return examples

    def close(self) -> None:
        self._examples = []


class SocketFeed:
    """A client of the sensor's Unix socket; answers go back on the same connection."""

    def __init__(self, config: SocketSource) -> None:
        self._path = str(config.path)
        self._socket: socket.socket | None = None
        self._lines = LineSplitter(LINE_MAX_BYTES)
        self._backlog = b""
        self._failures = 0
        self._connect_at = 0.0
        self._jitter = np.random.default_rng()
        self.answers_dropped = 0

    def fileno(self) -> int | None:
        return self._socket.fileno() if self._socket else None

    @property
    def wants_to_write(self) -> bool:
        return bool(self._backlog) and self._socket is not None

    def next_due(self) -> float | None:
        return None if self._socket else self._connect_at

    def read(self, now: float) -> list[Example]:
        if self._socket is None:
            if now >= self._connect_at:
                self._connect(now)
            return []
        try:
            chunk = self._socket.recv(READ_CHUNK_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        if not chunk:
            self._lost(now)
            return []
        return [parse_line(line) for line in self._lines.feed(chunk)]

    def send(self, answer: bytes) -> None:
        """Queue one answer line; dropped and counted when the reader does not keep up."""
        if self._socket is None or len(self._backlog) + len(answer) > ANSWER_BACKLOG_MAX_BYTES:
            self.answers_dropped += 1
            return
        self._backlog += answer
        self.flush()

    def flush(self) -> None:
        if self._socket is None or not self._backlog:
            return
        try:
            sent = self._socket.send(self._backlog)
            self._backlog = self._backlog[sent:]
        except BlockingIOError:
            return
        except OSError:
            self._lost(time.monotonic())

    def close(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(self._backlog)
        self._socket.close()
        self._socket = None

    def _connect(self, now: float) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(1.0)
            connection.connect(self._path)
        except OSError:
            connection.close()
            self._retry_later(now)
            return
        connection.setblocking(False)
        self._socket, self._failures = connection, 0
        self._lines, self._backlog = LineSplitter(LINE_MAX_BYTES), b""

    def _lost(self, now: float) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._retry_later(now)

    def _retry_later(self, now: float) -> None:
        self._failures += 1
        wait_s = backoff_s(self._failures, self._jitter.random(), 0.1, RECONNECT_S_MAX)
        self._connect_at = now + wait_s


def parse_line(line: bytes | None) -> Example:
    if line is None:
        return Example("", None, f"a line over {LINE_MAX_BYTES} bytes")
    try:
        document = json.loads(line)
        reference = str(document["reference"])[:REFERENCE_MAX_CHARS]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Example("", None, "a line is not JSON with a reference and values")
    try:
        example = checked(reference, np.asarray(document["values"], dtype=np.float32))
        return example._replace(begins=document.get("begins") is True)
    except (ValueError, TypeError, KeyError, OverflowError):
        return Example(reference, None, "values are not a rectangular array of numbers")


def checked(reference: str, values: Floats) -> Example:
    if not np.isfinite(values).all():
        return Example(reference, None, "values hold NaN or Inf")
    return Example(reference, values)


def _load(path: Path) -> Floats:
    try:
        if path.stat().st_size > REPLAY_FILE_MAX_BYTES:
            raise DataSetError(f"{path} is over {REPLAY_FILE_MAX_BYTES} bytes: split it")
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            with path.open(encoding="utf-8") as file:
                header = _is_header(file.readline())
            array = np.loadtxt(path, delimiter=",", skiprows=int(header), ndmin=2)
        table = np.asarray(array, dtype=np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise DataSetError(
            f"cannot play {path}: {error}; give a CSV or an NPY of numbers"
        ) from error
    if table.ndim not in (2, 3) or not len(table):
        raise DataSetError(f"{path} has shape {table.shape}: give (rows, channels)")
    return table


def _is_header(line: str) -> bool:
    try:
        [float(cell) for cell in line.split(",")]
    except ValueError:
        return True
    return False


def _windows(table: Floats, config: ReplaySource) -> list[tuple[int, Floats]]:
    """(first row, values) of every example, as views of the table."""
    rows = config.window_rows
    if table.ndim == 3 or rows is None:
        return list(enumerate(table))
    hop = config.hop_rows or rows
    windows = [(at, table[at : at + rows]) for at in range(0, len(table) - rows + 1, hop)]
    if not windows:
        raise DataSetError(f"{config.path} has {len(table)} rows; one window needs {rows}")
    return windows
