"""Power cuts at random points of one update after the other, on ext4.

At each cut: what the agent had promised must hold of the disk that is left, and an agent that
starts there must bring an update to its end by itself. A part of the cuts is where the agent's life
goes on, so that also its recovery is cut. One seed draws where the cuts fall; the agent's threads
and the kernel are as free as ever.
"""

import copy
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.torture.ext4_image import Mounted, checked, in_private, make_image, mounted
from edgeloop_simulators.torture.life import Life
from edgeloop_simulators.torture.promises import Ledger
from edgeloop_simulators.torture.subject import Goal
from edgeloop_simulators.torture.verdict import broken
from edgeloop_simulators.torture.versions import Shelf

AT_A_PROMISE: Final = 0.3
"""Share of promises right after which the power goes."""
IN_BETWEEN: Final = 0.1
"""Share of promises some milliseconds after which it goes."""
IN_BETWEEN_S_MAX: Final = 0.01
COMMITTED_FIRST: Final = 0.5
"""Share of cuts right before which another program's fsync committed the file system's journal."""
GOES_ON_THERE: Final = 0.25
REVISIONS_A_LIFE: Final = 100_000
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there


@dataclass(frozen=True)
class Cut:
    number: int
    problems: tuple[str, ...]


class PowerCuts:
    """Use it in a `with`, in a process with no other thread. `failures`: a directory where each
    image is kept in which something was broken."""

    def __init__(self, shelf: Path, seed: int, failures: Path | None = None) -> None:
        self._failures = failures
        self._stack = ExitStack()
        self._shelf = Shelf(shelf)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        memory = _MEMORY if _MEMORY.is_dir() else None
        self._directory = Path(tempfile.mkdtemp(prefix="edgeloop-torture-", dir=memory))
        self._cut_image = self._directory / "cut.img"
        self._revision = 0
        self._disk: Mounted | None = None
        self._life: Life | None = None

    def play(self, cuts: int) -> Iterator[Cut]:
        """Raises SimulatorError when the machine does not play along."""
        self._begin_anew()
        for number in range(1, cuts + 1):
            yield Cut(number, tuple(self._cut()))

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._stack.enter_context(in_private())
        self._stack.callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, image: Path, ledger: Ledger) -> None:
        disk = self._directory / "disk.img"
        image.replace(disk)
        self._disk = Mounted(disk, self._directory / "disk")
        self._life = Life(self._disk.at / "state", self._shelf, self._goal(forever=True), ledger)

    def _end(self) -> None:
        if self._life is not None:
            self._life.end()
            self._life = None
        if self._disk is not None:
            self._disk.unmount()
            self._disk = None

    def _goal(self, forever: bool) -> Goal:
        self._revision += REVISIONS_A_LIFE
        return Goal(self._revision, self._random.randrange(2), forever)

    def _cut(self) -> list[str]:
        life, disk = self._life, self._disk
        assert life is not None
        assert disk is not None
        try:
            waits = self._strike(life)
        except SimulatorError as error:
            self._begin_anew()
            return [str(error)]
        if self._random.random() < COMMITTED_FIRST:
            disk.commit_metadata()
        disk.copy_to(self._cut_image)
        problems = self._look_at_what_is_left(copy.deepcopy(life.ledger))
        if problems:
            problems.extend(self._keep_what_was_left())
            self._begin_anew()
        elif self._random.random() < GOES_ON_THERE:
            self._end()
            self._begin(self._cut_image, life.ledger)
        else:
            life.resume()
            if waits:
                life.go_on()
        return problems

    def _keep_what_was_left(self) -> Iterator[str]:
        unsound = checked(self._cut_image)
        if unsound:
            yield f"the file system itself is broken: {unsound}"
        if self._failures is not None:
            self._failures.mkdir(parents=True, exist_ok=True)
            kept = self._failures / f"revision-{self._revision}.img"
            shutil.copyfile(self._cut_image, kept)
            yield f"the disk that was left is {kept}"

    def _strike(self, life: Life) -> bool:
        """Stop the agent somewhere; True: it waits after a promise."""
        while life.promise():
            draw = self._random.random()
            if draw < AT_A_PROMISE:
                life.stop()
                return True
            life.go_on()
            if draw < AT_A_PROMISE + IN_BETWEEN:
                time.sleep(self._random.uniform(0.0, IN_BETWEEN_S_MAX))
                return life.stop()
        raise SimulatorError(f"the agent ended by itself, with status {life.end()}")

    def _look_at_what_is_left(self, ledger: Ledger) -> list[str]:
        image = self._directory / "looked-at.img"
        image.unlink(missing_ok=True)  # each copy is a file of its own, whoever holds the last one
        shutil.copyfile(self._cut_image, image)
        with mounted(image, self._directory / "looked-at") as disk:
            state_dir = disk.at / "state"
            problems = broken(state_dir, ledger)
            if problems:
                return problems
            life = Life(state_dir, self._shelf, self._goal(forever=False), ledger)
            try:
                status = life.live_out()
            except SimulatorError as error:
                return [f"after the cut: {error}"]
            finally:
                life.end()
            if status != 0 or not ledger.is_done:
                return [f"after the cut the agent did not get there: status {status}"]
            lost = [f"EL-TEL-3: records of epoch {epoch} never came" for epoch in ledger.missing()]
            return [*lost, *broken(state_dir, ledger)]

    def _begin_anew(self) -> None:
        self._end()
        image = self._directory / "new.img"
        make_image(image)
        self._begin(image, Ledger())
