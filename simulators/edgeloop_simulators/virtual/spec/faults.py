"""Faults as values: what goes wrong, when, for how long, to whom (the table is in ADR 0009).

Invariants: a list of faults says all that goes wrong in a world; `draw` depends on its arguments
alone; whatever is drawn ends by `until_s`.
"""

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from pydantic import ConfigDict, NonNegativeFloat

from edgeloop_protocol.config import Config


class FaultKind(StrEnum):
    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    DELAY = "delay"
    PARTITION = "partition"
    PARTITION_UP = "partition_up"
    PARTITION_DOWN = "partition_down"
    BROKER_RESTART = "broker_restart"
    BROKER_WIPE = "broker_wipe"
    RETAINED_LOST = "retained_lost"
    DUPLICATE_CLIENT_ID = "duplicate_client_id"
    POISON = "poison"
    OVERSIZE = "oversize"
    SLOW_DOWNLOAD = "slow_download"
    STALLED_DOWNLOAD = "stalled_download"
    CORRUPT_DOWNLOAD = "corrupt_download"
    MALICIOUS_SERVER = "malicious_server"
    PROCESS_KILL = "process_kill"
    POWER_CUT = "power_cut"
    TORN_WRITE = "torn_write"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    BIT_FLIP = "bit_flip"
    CLOCK_1970 = "clock_1970"
    CLOCK_FUTURE = "clock_future"
    CLOCK_JUMP = "clock_jump"
    MODEL_CRASH = "model_crash"
    MODEL_HANG = "model_hang"
    MODEL_NAN = "model_nan"
    MODEL_SLOW = "model_slow"
    MODEL_WRONG = "model_wrong"
    CONTROLLER_KILL = "controller_kill"
    CONTROLLER_FAILOVER = "controller_failover"
    RUNNER_KILL = "runner_kill"


class Fault(Config):
    """One thing that goes wrong. `target`: `*`, a device id, `site:NAME`, `class:NAME`, `broker`
    or `controller`; times are virtual seconds since the world's beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: FaultKind
    at_s: NonNegativeFloat
    duration_s: NonNegativeFloat = 0.0
    target: str = "*"
    amount: NonNegativeFloat = 0.0

    def hits(self, name: str, site: str, kind: str) -> bool:
        """`name`: a device id or `controller`; `kind`: the name of a device's class."""
        target = self.target
        return target in ("*", name) or target == f"site:{site}" or target == f"class:{kind}"

    def __str__(self) -> str:
        text = f"{self.kind} of {self.target} at {self.at_s:.1f} s"
        if self.duration_s:
            text += f" for {self.duration_s:.1f} s"
        return f"{text}, {self.amount:g}" if self.amount else text


Rates = dict[FaultKind, NonNegativeFloat]
"""How many of each kind are to be expected over the faulty part of a world; absent: none."""


FAULTS_MAX: Final = 200
"""Of one world: more says nothing more, and takes long to shrink."""

_SHARE: Final = (0.05, 0.6)
_OPERATION: Final = (0.0, 60.0)
_AMOUNTS: Final[dict[FaultKind, tuple[float, float]]] = {
    FaultKind.DROP: _SHARE,
    FaultKind.DUPLICATE: _SHARE,
    FaultKind.REORDER: _SHARE,
    FaultKind.DELAY: (0.5, 30.0),
    FaultKind.DUPLICATE_CLIENT_ID: (1.0, 3.0),
    FaultKind.POISON: (1.0, 10.0),
    FaultKind.OVERSIZE: (1.0, 3.0),
    FaultKind.SLOW_DOWNLOAD: (50.0, 5_000.0),
    FaultKind.CORRUPT_DOWNLOAD: _SHARE,
    FaultKind.MALICIOUS_SERVER: _SHARE,
    FaultKind.PROCESS_KILL: _OPERATION,
    FaultKind.POWER_CUT: _OPERATION,
    FaultKind.TORN_WRITE: _OPERATION,
    FaultKind.IO_ERROR: _SHARE,
    FaultKind.BIT_FLIP: (1.0, 4.0),
    FaultKind.CLOCK_JUMP: (1.0, 100_000.0),
    FaultKind.CONTROLLER_KILL: _OPERATION,
    FaultKind.CONTROLLER_FAILOVER: _OPERATION,
}
_WHOLE: Final = frozenset(
    {
        FaultKind.DUPLICATE_CLIENT_ID,
        FaultKind.POISON,
        FaultKind.OVERSIZE,
        FaultKind.PROCESS_KILL,
        FaultKind.POWER_CUT,
        FaultKind.TORN_WRITE,
        FaultKind.BIT_FLIP,
        FaultKind.CONTROLLER_KILL,
        FaultKind.CONTROLLER_FAILOVER,
    }
)
OF_THE_BROKER: Final = frozenset(
    {FaultKind.BROKER_RESTART, FaultKind.BROKER_WIPE, FaultKind.RETAINED_LOST}
)
OF_THE_NETWORK: Final = OF_THE_BROKER | {
    FaultKind.DROP,
    FaultKind.DUPLICATE,
    FaultKind.REORDER,
    FaultKind.DELAY,
    FaultKind.PARTITION,
    FaultKind.PARTITION_UP,
    FaultKind.PARTITION_DOWN,
    FaultKind.DUPLICATE_CLIENT_ID,
    FaultKind.POISON,
    FaultKind.OVERSIZE,
}
"""What Network.begin and Network.end perform."""
OF_THE_CONTROLLER: Final = frozenset({FaultKind.CONTROLLER_KILL, FaultKind.CONTROLLER_FAILOVER})
OF_A_MODEL: Final = frozenset(
    {
        FaultKind.MODEL_CRASH,
        FaultKind.MODEL_HANG,
        FaultKind.MODEL_NAN,
        FaultKind.MODEL_SLOW,
        FaultKind.MODEL_WRONG,
    }
)
_DURATION_S: Final = (5.0, 180.0)


def draw(
    rates: Mapping[FaultKind, float],
    random_: random.Random,
    *,
    devices: Sequence[str],
    sites: Sequence[str],
    versions: int,
    until_s: float,
) -> tuple[Fault, ...]:
    """Faults in order of time. `versions`: how many the script publishes (a bad one is not the
    first, on which a device must be able to fall back)."""
    drawn: list[Fault] = []
    for kind in FaultKind:
        for _ in range(_how_many(rates.get(kind, 0.0), random_)):
            drawn.append(_one(kind, random_, devices, sites, versions, until_s))
    drawn.sort(key=lambda fault: (fault.at_s, fault.kind.value, fault.target))
    return tuple(drawn[:FAULTS_MAX])


def _how_many(expected: float, random_: random.Random) -> int:
    whole = int(expected)
    return whole + (random_.random() < expected - whole)


def _one(
    kind: FaultKind,
    random_: random.Random,
    devices: Sequence[str],
    sites: Sequence[str],
    versions: int,
    until_s: float,
) -> Fault:
    at_s = round(random_.uniform(0.0, until_s * 0.9), 1)
    duration_s = round(min(random_.uniform(*_DURATION_S), until_s - at_s), 1)
    amount = random_.uniform(*_AMOUNTS.get(kind, (0.0, 0.0)))
    if kind in OF_A_MODEL:
        bad = random_.randint(2, max(2, versions))
        return Fault(kind=kind, at_s=0.0, amount=float(bad))
    target = _target(kind, random_, devices, sites)
    rounded = float(int(amount)) if kind in _WHOLE else round(amount, 3)
    return Fault(kind=kind, at_s=at_s, duration_s=duration_s, target=target, amount=rounded)


def _target(
    kind: FaultKind, random_: random.Random, devices: Sequence[str], sites: Sequence[str]
) -> str:
    if kind in OF_THE_BROKER:
        return "broker"
    if kind in OF_THE_CONTROLLER:
        return "controller"
    luck = random_.random()
    if luck < 0.2 and sites:
        return f"site:{random_.choice(sites)}"
    if luck < 0.3:
        return "*"
    return random_.choice(devices)
