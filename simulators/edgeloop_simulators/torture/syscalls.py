"""A fault at every write, fsync and rename of an update: the agent killed there, or told by the
kernel that the disk is full or broken.

strace first lists what an undisturbed update does to its state directory, then plays the update
again for each call of that list, with one fault put into it. A point is a call by name, path and
place among its like; threads count for themselves.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.torture.promises import Ledger
from edgeloop_simulators.torture.verdict import broken

CALLS: Final = (
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "mkdir",
)
RUN_TIMEOUT_S: Final = 120.0
STARTS_MAX: Final = 2
"""After a kill whoever keeps services alive starts the agent again; after a refusal by the disk it
must go on as it is."""
SHOWN_CHARS_MAX: Final = 300
_CALL: Final = re.compile(r'^(\w+)\((?:\d+<([^>]+)>|(?:AT_FDCWD[^,]*, )?"([^"]+)")')


class Fault(Enum):
    KILL = "signal=SIGKILL"
    FULL = "error=ENOSPC"
    BROKEN = "error=EIO"


@dataclass(frozen=True, order=True)
class Point:
    """`path`: relative to the state directory, `.` for itself; `place`: from 1."""

    call: str
    path: str
    place: int

    def __str__(self) -> str:
        return f"{self.call} {self.path} #{self.place}"


@dataclass(frozen=True)
class Struck:
    point: Point
    fault: Fault
    starts: int
    """Of the agent, until it had done what it should."""
    was_reached: bool
    problems: tuple[str, ...]


def why_not() -> str:
    """What this machine lacks, in words; empty: nothing."""
    if shutil.which("strace") is None:
        return "strace not found: install strace"
    tried = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()}"


class Syscalls:
    """`quick`: runners without processes. Use `points`, then `strike_all`, then `close`."""

    def __init__(self, shelf: Path, *, quick: bool = True) -> None:
        self._shelf = shelf
        self._quick = quick
        self._directory = Path(tempfile.mkdtemp(prefix="edgeloop-torture-"))
        self._base = self._directory / "base"
        self._base_ledger = Ledger()
        status, said = self._agent(self._base, 1, self._base_ledger, ())
        if status != 0:
            raise SimulatorError(f"the first version was not installed: {said[-SHOWN_CHARS_MAX:]}")

    def points(self) -> list[Point]:
        state_dir, logs = self._copy_of_base("listed"), self._directory / "logs"
        logs.mkdir(exist_ok=True)
        tracer = ("strace", "-ff", "-y", "-qq", "-e", f"trace={','.join(CALLS)}")
        self._agent(state_dir, 2, Ledger(), (*tracer, "-o", str(logs / "log")))
        found: set[Point] = set()
        for log in sorted(logs.iterdir()):
            found |= set(_points(log.read_text(errors="replace"), state_dir))
        shutil.rmtree(state_dir)
        return sorted(found)

    def strike_all(
        self, points: Sequence[Point], faults: Sequence[Fault], jobs: int
    ) -> Iterator[Struck]:
        with ThreadPoolExecutor(jobs) as pool:
            strikes = [(point, fault) for point in points for fault in faults]
            yield from pool.map(lambda strike: self.strike(*strike), strikes)

    def strike(self, point: Point, fault: Fault) -> Struck:
        state_dir = self._copy_of_base(f"{point}-{fault.name}".replace("/", "-").replace(" ", "-"))
        report = Path(f"{state_dir}.strace")
        inject = f"inject={point.call}:{fault.value}:when={point.place}"
        path = str(state_dir / point.path) if point.path != "." else str(state_dir)
        tracer = ("strace", "-f", "-q", "-o", str(report), "-P", path)
        ledger = copy.deepcopy(self._base_ledger)
        ledger.is_done = False
        try:
            first = (*tracer, "-e", f"trace={point.call}", "-e", inject)
            starts, problems = self._until_done(state_dir, ledger, first, fault)
            was_reached = _was_reached(report, fault)
            return Struck(point, fault, starts, was_reached, tuple(problems))
        finally:
            shutil.rmtree(state_dir, ignore_errors=True)
            report.unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _until_done(
        self, state_dir: Path, ledger: Ledger, first: tuple[str, ...], fault: Fault
    ) -> tuple[int, list[str]]:
        """How often it was started, and what was broken on the way."""
        tracer = first
        for starts in range(1, STARTS_MAX + 1):
            status, said = self._agent(state_dir, 2, ledger, tracer)
            problems = broken(state_dir, ledger)
            if problems:
                return starts, problems
            if status == 0 and ledger.is_done:
                missing = [f"EL-TEL-3: records of {epoch} never came" for epoch in ledger.missing()]
                return starts, missing
            if starts == STARTS_MAX or fault is not Fault.KILL:
                return starts, [f"it does not go on by itself: {said[-SHOWN_CHARS_MAX:]}"]
            tracer = ()
        raise AssertionError("the last start returns")

    def _agent(
        self, state_dir: Path, version: int, ledger: Ledger, tracer: tuple[str, ...]
    ) -> tuple[int, str]:
        """Its exit status, negative where a signal ended it, and its last words."""
        command = [*tracer, sys.executable, "-m", "edgeloop_simulators.torture.subject"]
        where = [str(state_dir), str(self._shelf)]
        what = ["--revision", str(version), "--version", str(version)]
        quick = ["--quick"] if self._quick else []
        try:
            done = subprocess.run(
                [*command, *where, *what, *quick],
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        except subprocess.TimeoutExpired:
            return 1, f"it was wedged: nothing came of it within {RUN_TIMEOUT_S:g} s"
        for line in done.stdout.splitlines():
            ledger.take(line)
        return done.returncode, done.stderr

    def _copy_of_base(self, name: str) -> Path:
        copy = self._directory / name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._base, copy)
        return copy


def _points(log: str, state_dir: Path) -> Iterator[Point]:
    """Of one thread."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, path = call[1], Path(call[2] or call[3])
        if path.is_relative_to(state_dir):
            relative = str(path.relative_to(state_dir))
            counts[name, relative] += 1
            yield Point(name, relative, counts[name, relative])


def _was_reached(report: Path, fault: Fault) -> bool:
    words = report.read_text(errors="replace") if report.exists() else ""
    return "killed by SIGKILL" in words if fault is Fault.KILL else "(INJECTED)" in words
