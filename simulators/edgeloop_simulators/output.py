"""Where a run is written: its own directory, empty, and held by one run at a time.

Invariants: only a directory that a run has marked as its own is removed from, and of it only what
runs write; anything else is never touched.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.record import run_directory
from edgeloop_simulators.sensors import SOCKET_PATH_MAX_BYTES

MARKER: Final = ".edgeloop-sim"
WRITTEN: Final = ("summary.json", "report.html", "report.json")


@contextmanager
def output_directory(out: Path) -> Iterator[Path]:
    """Make `out` and its empty `run` directory; what an earlier run wrote there is removed.

    Raises RecordError when `out` is something else, cannot be written, or has a run under way.
    """
    try:
        fresh = not out.exists() or (out.is_dir() and not any(out.iterdir()))
        if not fresh and not (out / MARKER).is_file():
            raise RecordError(f"{out} is not empty and no run of edgeloop-sim: give another --out")
        out.mkdir(parents=True, exist_ok=True)
        marker = (out / MARKER).open("a", encoding="utf-8")
    except OSError as error:
        raise _cannot(out, error) from error
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it, whatever ends
            directory = _emptied(out)
        except BlockingIOError as error:
            raise RecordError(f"another run is under way in {out}: give another --out") from error
        except OSError as error:
            raise _cannot(out, error) from error
        yield directory


def _emptied(out: Path) -> Path:
    directory = run_directory(out)
    if directory.exists():
        shutil.rmtree(directory)
    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)
    directory.mkdir()
    return directory


def _cannot(out: Path, error: OSError) -> RecordError:
    return RecordError(f"{out} cannot take a run ({error}): give another --out")


@contextmanager
def socket_directory(run: Path, sockets: int) -> Iterator[Path]:
    """In the run's own directory, which the next run empties even when this one is killed.

    Where that path is too long for a socket's name it is in TMPDIR, and a run that is killed with
    -9 leaves it there.
    """
    own = run / "sockets"
    if len(bytes(own / f"{sockets}.sock")) > SOCKET_PATH_MAX_BYTES:
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as temporary:
            yield Path(temporary)
        return
    own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
