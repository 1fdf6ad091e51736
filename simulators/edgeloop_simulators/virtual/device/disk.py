"""What goes wrong with a device's disk and power: faults, as the disk's `before` and as events.

Invariants: a process that dies does so in the middle of what it did, at the very operation that
the fault names; everything that luck decides comes from the device's own stream.
"""

import errno
from collections.abc import Callable
from enum import Enum
from typing import Final

from edgeloop_simulators.twins.disk import MemoryDisk, Operation
from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind

CHANGES: Final = frozenset(
    {"open", "write", "sync", "rename", "remove", "make_directory", "sync_directory"}
)
KINDS: Final = frozenset(
    {
        FaultKind.PROCESS_KILL,
        FaultKind.POWER_CUT,
        FaultKind.TORN_WRITE,
        FaultKind.DISK_FULL,
        FaultKind.IO_ERROR,
        FaultKind.BIT_FLIP,
    }
)


class Death(BaseException):
    """The process ended in the middle of something; `how` says by what."""

    def __init__(self, how: "How") -> None:
        super().__init__(how.value)
        self.how = how


class How(Enum):
    KILLED = "kill -9"
    POWER_CUT = "power cut"
    TORN = "power cut in the middle of a write"
    RAISED = "an exception that nobody expected"
    CANNOT_START = "cannot start"
    SWITCHED_OFF = "switched off"


_HOW: Final = {
    FaultKind.PROCESS_KILL: How.KILLED,
    FaultKind.POWER_CUT: How.POWER_CUT,
    FaultKind.TORN_WRITE: How.TORN,
}


class DeviceDisk:
    """A MemoryDisk under faults. `die` is called for a death outside any operation."""

    __slots__ = (
        "_armed",
        "_capacity_bytes",
        "_die",
        "_full",
        "_io_error_share",
        "_luck",
        "damaged",
        "disk",
        "flips",
        "operations",
    )

    def __init__(self, capacity_bytes: int, luck: Luck, die: Callable[[How], None]) -> None:
        self.disk = MemoryDisk(capacity_bytes, self._before)
        self.operations = 0
        """Changes, ever: who looks at the disk need not while it stays."""
        self.damaged: set[str] = set()
        """Paths in which the medium changed bits, ever."""
        self.flips = 0
        """How often it did."""
        self._capacity_bytes = capacity_bytes
        self._luck = luck
        self._die = die
        self._armed: dict[Fault, int] = {}
        self._full = 0
        self._io_error_share: dict[Fault, float] = {}

    def begin(self, fault: Fault) -> None:
        if fault.kind in _HOW:
            if fault.amount:
                self._armed[fault] = self.operations + int(fault.amount)
            else:
                self._die(_HOW[fault.kind])
        elif fault.kind is FaultKind.DISK_FULL:
            self._full += 1
            self.disk.capacity_bytes = self.disk.used_bytes()
        elif fault.kind is FaultKind.IO_ERROR:
            self._io_error_share[fault] = fault.amount
        elif fault.kind is FaultKind.BIT_FLIP:
            self._flip(int(fault.amount))

    def end(self, fault: Fault) -> None:
        self._armed.pop(fault, None)
        self._io_error_share.pop(fault, None)
        if fault.kind is FaultKind.DISK_FULL:
            self._full -= 1
            if not self._full:
                self.disk.capacity_bytes = self._capacity_bytes

    def after(self, how: How) -> None:
        """What the end of the process leaves on the disk."""
        if how in (How.POWER_CUT, How.TORN):
            self.disk.power_cut(self._luck, torn=how is How.TORN)
        else:
            self.disk.process_killed()
        if self._full:
            self.disk.capacity_bytes = self.disk.used_bytes()

    @property
    def is_ill(self) -> bool:
        return bool(self._full or self._io_error_share)

    def problem(self) -> str:
        """What a database on this disk would say now; empty: nothing."""
        if self._full:
            return "database or disk is full"
        share = max(self._io_error_share.values(), default=0.0)
        return "disk I/O error" if share and self._luck.random() < share else ""

    def _before(self, operation: Operation, path: str) -> None:
        if operation in CHANGES:
            self.operations += 1
            for fault, at in self._armed.items():
                if self.operations >= at:
                    del self._armed[fault]
                    raise Death(_HOW[fault.kind])
        if not self._io_error_share:
            return
        share = max(self._io_error_share.values(), default=0.0)
        if self._luck.random() < share:
            raise OSError(errno.EIO, "Input/output error", path)

    def _flip(self, bits: int) -> None:
        files = self.disk.files()
        for _ in range(bits if files else 0):
            path = files[self._luck.randrange(len(files))]
            self.damaged.add(path)
            self.flips += 1
            self.disk.flip_bit(path, self._luck)
