"""`make bench-delta`: how many bytes an update costs as a patch, and how long it takes to apply.

Beside our patches stand the whole file, zstd -19 of it, `zstd --patch-from` and bsdiff4. Times and
memory of the applier are those of the agent's real child process, from its start to its end, beside
a floor: a child that imports what the applier imports, copies a file of the same size and is done.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import bsdiff4
from rich.console import Console
from rich.table import Table

from edgeloop_agent.ports import PatchJob
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.patch_process import PatchProcess
from edgeloop_controller.packaging.delta_child import MAKERS
from edgeloop_controller.packaging.deltas import Delta
from edgeloop_protocol.limits import PATCH_SHARE_MAX
from edgeloop_protocol.patch_formats import HDIFF, TENSORS
from edgeloop_simulators.bench.delta_models import Pair, pairs
from edgeloop_simulators.errors import SimulatorError

ROUNDS: Final = 5
_FLOORS: Final = {TENSORS: "import numpy, zstandard", HDIFF: "import hdiffpatch"}
_COPY: Final = "open({new!r}, 'wb').write(open({base!r}, 'rb').read())"
_TELL_PEAK: Final = """
words = open("/proc/self/status").read().split()
print(int(words[words.index("VmHWM:") + 1]) * 1024)
"""
"""Not ru_maxrss, which a child begins with that of its parent."""

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Applied:
    seconds: float
    cpu_s: float
    """Of the process: what other work on the machine does not change much."""


@dataclass(frozen=True)
class Measured:
    pair: Pair
    patch: Delta
    """The smaller of our two."""
    other_bytes: dict[str, int]
    applied: Applied
    inside_s: float
    """Of `applied`, without the start of the process and its imports."""
    peak_bytes: int
    floor: Applied
    floor_peak_bytes: int

    @property
    def offered_bytes(self) -> int:
        size, full = len(self.patch.content), len(self.pair.new)
        return size if size <= PATCH_SHARE_MAX * full else full


def main(names: Sequence[str]) -> int:
    """Rows whose name holds one of `names`, or all; 1 where another way is shorter than ours."""
    console = Console(width=max(140, Console().width))
    wanted = [p for p in pairs() if not names or any(name in p.what for name in names)]
    with tempfile.TemporaryDirectory(prefix="edgeloop-delta-") as made:
        rows = []
        for pair in wanted:
            console.print(f"[dim]{pair.what} …")
            rows.append(_measure(pair, Path(made)))
    console.print(_bytes_table(rows))
    console.print(_time_table(rows))
    return int(any(row.offered_bytes > min(row.other_bytes.values()) for row in rows))


def _measure(pair: Pair, directory: Path) -> Measured:
    patch = min(
        (Delta(name, make(pair.base, pair.new)) for name, make in MAKERS.items()),
        key=lambda delta: len(delta.content),
    )
    base, new, how = directory / "base", directory / "new", directory / "patch"
    base.write_bytes(pair.base)
    how.write_bytes(patch.content)
    applier = PatchProcess(OsDisk(directory))
    job = PatchJob(patch.format, base.name, how.name, new.name, len(pair.new))
    applied, floors, inside = [], [], []
    copies = f"{_FLOORS[patch.format]}\n{_COPY.format(base=str(base), new=str(new))}"
    for _ in range(ROUNDS):  # by turns: other work on the machine then hits both
        applied.append(_timed(lambda: applier.apply(job)))
        if new.read_bytes() != pair.new:
            raise SimulatorError(f"{pair.what}: the patch does not give the new file")
        floors.append(_timed(lambda: _run(copies)))
        inside.append(_inside(patch.format, base, how, new, len(pair.new)))
    others = _others(pair, base, directory)
    floor_peak_bytes = int(_run(copies + _TELL_PEAK))
    seconds, peaks = zip(*inside, strict=True)
    return Measured(
        pair,
        patch,
        others,
        _median(applied),
        median(seconds),
        int(median(peaks)),
        _median(floors),
        floor_peak_bytes,
    )


def _others(pair: Pair, base: Path, directory: Path) -> dict[str, int]:
    new = directory / "whole"
    new.write_bytes(pair.new)
    return {
        "full": len(pair.new),
        "zstd -19": _zstd(new),
        "zstd --patch-from": _zstd(new, f"--patch-from={base}", "--long=27"),
        "bsdiff4": len(bsdiff4.diff(pair.base, pair.new)),
    }


def _zstd(path: Path, *options: str) -> int:
    command = ["zstd", "-19", "-q", "-c", *options, str(path)]
    return len(subprocess.run(command, capture_output=True, check=True).stdout)


def _run(code: str) -> str:
    command = [sys.executable, "-P", "-c", code]
    ran = subprocess.run(command, check=True, capture_output=True, env=os.environ | _ONE_THREAD)
    return ran.stdout.decode()


def _inside(patch_format: str, base: Path, how: Path, new: Path, size: int) -> tuple[float, int]:
    """Seconds of the applier's own work, and the peak of a process that does it and no more."""
    said = _run(
        f"{_FLOORS[patch_format]}\n"
        "import time\n"
        "from edgeloop_agent.patching.main import APPLIERS\n"
        "from pathlib import Path\n"
        f"apply = APPLIERS[{patch_format!r}]\n"
        f"paths = [Path(p) for p in {[str(base), str(how), str(new)]!r}]\n"
        "import edgeloop_protocol.tensor_patch\n"
        "began = time.perf_counter()\n"
        f"apply(*paths, {size})\n"
        "print(time.perf_counter() - began)" + _TELL_PEAK
    )
    seconds, peak_bytes = said.split()
    return float(seconds), int(peak_bytes)


def _timed(work: Callable[[], object]) -> Applied:
    """In a process of its own: what children used is told of all together."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        began = time.perf_counter()
        try:
            work()
            took_s = time.perf_counter() - began
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = used.ru_utime + used.ru_stime
            os.write(write, f"{took_s} {cpu_s}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        words = said.read().split()
    os.waitpid(child, 0)
    if len(words) != 2:
        raise SimulatorError("the applier failed: apply the same patch by hand to see why")
    return Applied(float(words[0]), float(words[1]))


def _median(several: list[Applied]) -> Applied:
    return Applied(
        median(one.seconds for one in several),
        median(one.cpu_s for one in several),
    )


def _bytes_table(rows: list[Measured]) -> Table:
    table = Table(title="Bytes of an update", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("full", "zstd -19", "zstd --patch-from", "bsdiff4", "ours", "of full", "by"):
        table.add_column(heading, justify="right")
    table.add_column("ours / best", justify="right")
    for row in rows:
        ours, best = len(row.patch.content), min(row.other_bytes.values())
        table.add_row(
            row.pair.what,
            *(f"{size:,}" for size in row.other_bytes.values()),
            f"{ours:,}",
            f"{ours / len(row.pair.new):.1%}",
            row.patch.format,
            f"{ours / best:.2f}",
        )
    return table


def _time_table(rows: list[Measured]) -> Table:
    table = Table(title="Applied on the device", title_justify="left", title_style="bold")
    table.add_column("")
    headings = ("apply", "process", "floor", "processor", "floor", "ratio", "peak", "floor")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        ours, floor = row.applied, row.floor
        table.add_row(
            row.pair.what,
            f"{row.inside_s * 1e3:,.0f} ms",
            f"{ours.seconds * 1e3:,.0f} ms",
            f"{floor.seconds * 1e3:,.0f} ms",
            f"{ours.cpu_s * 1e3:,.0f} ms",
            f"{floor.cpu_s * 1e3:,.0f} ms",
            f"{ours.cpu_s / floor.cpu_s:.2f}",
            f"{row.peak_bytes / 1e6:.1f} MB",
            f"{row.floor_peak_bytes / 1e6:.1f} MB",
        )
    table.caption = (
        "apply: within the process; process: from its start to its end, at nice 10; processor: its "
        "time on one; floor: a process with the same imports that copies a file of that size"
    )
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
