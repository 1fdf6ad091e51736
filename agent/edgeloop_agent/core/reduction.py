"""What a full outbox gives up, and in which order: pure, over rows of (kind, key, times, size).

The order (`Rung`) is that of who reads the data after a month offline. Sketches go first: a
window's histograms say nearly the same in a thirtieth of the bytes. Then windows are merged, the
oldest first, to ten minutes, an hour, a day: nothing that can be counted is lost by it, only *when*
within the day. Then samples go: raw examples are worth most while they are new, and no count hangs
on them. Then events, which are few and tell what happened. Windows go last: with one, examples are
lost.

Invariants: a rung is taken only where those before it have nothing left to give; rows that may have
been sent already (`sealed_rows`) are in no plan.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from edgeloop_agent.core.window_merge import Key
from edgeloop_protocol.limits import BATCH_RECORDS_MAX, BATCH_TARGET_BYTES, KIB, PAYLOAD_MAX_BYTES

RECORD_MAX_BYTES: Final = PAYLOAD_MAX_BYTES - 1 * KIB
"""What is left of a message beside the batch's own keys."""
COARSEST_S: Final = 86_400.0
"""No example's count is lost before all windows are merged down to one a day (UTC, by the device's
clock) of each slot, version and boot."""


class Kind(Enum):
    WINDOW = "window"
    SAMPLE = "sample"
    """Also what a challenger showed: of no example that anybody was answered."""
    EVENT = "event"
    """Also what cannot be read any more."""


class Rung(Enum):
    """What is given up, in this order; the value is for people."""

    SKETCHES = "sketches"
    TEN_MINUTES = "windows to ten minutes"
    HOUR = "windows to an hour"
    DAY = "windows to a day"
    SAMPLES = "samples"
    EVENTS = "events"


GRAINS_S: Final = {Rung.TEN_MINUTES: 600.0, Rung.HOUR: 3600.0, Rung.DAY: COARSEST_S}
DROPPED_KINDS: Final = {Rung.SAMPLES: Kind.SAMPLE, Rung.EVENTS: Kind.EVENT}


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """`segment_…`: how much is read and written at once while room is made. `slack_share`: a part
    of the bound that is freed beyond what is needed, so that not every append makes room.
    `aggregates_from_bytes`: a smaller bound holds little more than what may have been sent."""

    batch_records_max: int = BATCH_RECORDS_MAX
    batch_bytes_max: int = BATCH_TARGET_BYTES
    record_bytes_max: int = RECORD_MAX_BYTES
    segment_rows_max: int = 500
    segment_bytes_max: int = 512 * KIB
    slack_share: float = 1 / 64
    aggregates_from_bytes: int = 2 * PAYLOAD_MAX_BYTES


DEFAULT_LIMITS: Final = OutboxLimits()


@dataclass(slots=True)
class Tally:
    """Records that are there no more. Merged: within another window; dropped: not at all, a merged
    window as the many that it was."""

    windows_merged: int = 0
    sketches_shed: int = 0
    samples_dropped: int = 0
    events_dropped: int = 0
    windows_dropped: int = 0

    @property
    def dropped(self) -> int:
        return self.samples_dropped + self.events_dropped + self.windows_dropped

    def add(self, other: "Tally") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class Row:
    """A held record, as far as it matters here; `windows`: how many are merged in it."""

    kind: Kind
    size_bytes: int
    key: Key = ()
    started_at: float = 0.0
    ended_at: float = 0.0
    sketch_bytes: int = 0
    windows: int = 1


def sealed_rows(sizes_bytes: Iterable[int], limits: OutboxLimits) -> int:
    """How many of the oldest rows, of one boot, may have been sent: as many as a batch can hold.

    Whatever was sent was the oldest batch at its time. Since then rows were added behind it and
    taken away before or in it, so all that is left of it is within the oldest batch of today.
    """
    total = 0
    for place, size in enumerate(sizes_bytes):
        total += size
        if place >= limits.batch_records_max or (place and total > limits.batch_bytes_max):
            return place
    return limits.batch_records_max


def bucket(row: Row, grain_s: float) -> int | None:
    """Which of the aligned periods it lies in; None: it is no part of one."""
    if row.kind is not Kind.WINDOW or not 0.0 <= row.ended_at - row.started_at <= grain_s:
        return None
    return int(row.started_at // grain_s)


def merge_groups(rows: Sequence[Row], grain_s: float) -> list[tuple[int, ...]]:
    """Places of rows that become one, in the place of the last of them."""
    groups: dict[tuple[Key, int], list[int]] = {}
    for place, row in enumerate(rows):
        period = bucket(row, grain_s)
        if period is not None:
            groups.setdefault((row.key, period), []).append(place)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def rows_to_shed(rows: Sequence[Row], need_bytes: int) -> list[int]:
    """Places of the oldest windows whose sketches go, as many as are needed."""
    return _oldest([(place, row.sketch_bytes) for place, row in enumerate(rows)], need_bytes)


def rows_to_drop(rows: Sequence[Row], kind: Kind, need_bytes: int) -> list[int]:
    """Places of the oldest rows of a kind, as many as are needed."""
    sizes = [(place, row.size_bytes) for place, row in enumerate(rows) if row.kind is kind]
    return _oldest(sizes, need_bytes)


def _oldest(sizes: Iterable[tuple[int, int]], need_bytes: int) -> list[int]:
    chosen: list[int] = []
    for place, size in sizes:
        if need_bytes <= 0:
            break
        if size:
            chosen.append(place)
            need_bytes -= size
    return chosen


def tally_dropped(rows: Iterable[Row]) -> Tally:
    """Of a merged window all that it was is dropped, and is merged no more."""
    tally = Tally()
    for row in rows:
        if row.kind is Kind.WINDOW:
            tally.windows_dropped += row.windows
            tally.windows_merged -= row.windows - 1
        elif row.kind is Kind.SAMPLE:
            tally.samples_dropped += 1
        else:
            tally.events_dropped += 1
    return tally
