"""Telemetry into the tables, exactly once, and the queries over windows.

Invariants: rows and the cursor of their (device, epoch) move in one transaction, so the cursor's
`through` says exactly how many records are stored, refused, merged into others or lost. A record
that cannot be used is refused by an event in its place, under its number: it never holds up those
behind it.
"""

import math
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import BindParameter, bindparam, func, insert, select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from edgeloop_controller.store.json_text import JsonText
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import (
    Base,
    Device,
    Event,
    Sample,
    ShadowWindow,
    TelemetryCursor,
    Window,
    table_of,
)
from edgeloop_protocol import messages
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import (
    DeviceEvent,
    Record,
    Reduced,
    Said,
    ShadowSummary,
    TelemetryBatch,
    WindowSummary,
)

STORE_ERRORS: Final = (SQLAlchemyError, ValueError, OverflowError)
"""What values that no column holds raise, an OperationalError (try again later) apart."""

READ_ROWS: Final = 1000
CURSORS_A_QUERY: Final = 1000
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass
class Rows:
    """Rows that wait for one bulk insert at the end of the transaction, in the order of arrival."""

    windows: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def add_event(
        self,
        at: float,
        kind: str,
        subject: str,
        data: dict[str, Any],
        number: tuple[str, str, int] | None = None,
    ) -> None:
        """`number` is (device, epoch, sequence) of an event that the device tells of."""
        device_id, epoch, sequence = number or (None, None, None)
        self.events.append(
            {
                "at": at,
                "kind": kind,
                "subject": subject,
                "data": data,
                "device_id": device_id,
                "epoch": epoch,
                "sequence": sequence,
            }
        )


_NUMBERS: Final = (
    "through",
    "lost",
    "duplicates",
    "merged",
    "sketches_shed",
    "samples_dropped",
    "events_dropped",
)


@dataclass(slots=True)
class Cursor:
    """A TelemetryCursor as one batch of messages moves it."""

    device_id: str
    epoch: str
    through: int = 0
    lost: int = 0
    duplicates: int = 0
    merged: int = 0
    sketches_shed: int = 0
    samples_dropped: int = 0
    events_dropped: int = 0
    is_new: bool = True

    def numbers(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _NUMBERS}


@dataclass(frozen=True)
class UnusableRecord:
    """A record of a known number whose body cannot be read or stored, and why."""

    sequence: int
    reason: str


@dataclass(frozen=True)
class PartialBatch:
    """A TelemetryBatch of which some records are unusable; its numbers are as valid as that's."""

    epoch: str
    base: int
    records: tuple[Record | UnusableRecord, ...]
    said: Said | None = None
    reduced: Reduced | None = None


@dataclass(frozen=True)
class Taken:
    """What became of one batch; `through` is what to acknowledge. `lost` is negative where what
    was counted so before came merged."""

    through: int
    stored: int
    refused: int
    duplicates: int
    lost: int
    merged: int
    gap: bool


def take_batch(
    cursor: Cursor, batch: TelemetryBatch | PartialBatch, now: float, rows: Rows
) -> Taken:
    """Move the cursor over `batch` and add its new records to `rows`.

    Records at or below the cursor are duplicates. Sequences between the cursor and `base` are gone
    from the device's outbox: counted as lost, once, until a window comes that they are merged in.
    A batch that starts above the cursor although the device still holds what lies between is
    refused (`gap`): the acknowledgement of what is here makes the device send from there.
    """
    gone = max(0, batch.base - 1 - cursor.through)
    cursor.lost += gone
    cursor.through += gone
    _remember_reduced(cursor, batch.reduced)
    new: list[Record | UnusableRecord] = [
        record for record in batch.records if record.sequence > cursor.through
    ]
    duplicates = len(batch.records) - len(new)
    cursor.duplicates += duplicates
    gap = bool(new) and new[0].sequence > cursor.through + 1
    merged = 0
    if new and not gap:
        for record in new:
            _add_row(cursor.device_id, batch.epoch, record, now, rows)
        cursor.through = new[-1].sequence
        merged = _count_merged(cursor, new)
    taken = [] if gap else new
    refused = sum(isinstance(record, UnusableRecord) for record in taken)
    return Taken(
        cursor.through, len(taken) - refused, refused, duplicates, gone - merged, merged, gap
    )


def _count_merged(cursor: Cursor, records: Sequence[Record | UnusableRecord]) -> int:
    """Windows that come within others were counted as lost when their numbers were seen to be gone.

    Never more than were gone, whatever a device says.
    """
    merged = sum(
        record.body.windows - 1
        for record in records
        if isinstance(record, Record) and isinstance(record.body, WindowSummary)
    )
    merged = min(merged, cursor.lost)
    cursor.lost -= merged
    cursor.merged += merged
    return merged


def _remember_reduced(cursor: Cursor, reduced: Reduced | None) -> None:
    """What comes late says less than what is known."""
    if reduced is not None:
        cursor.sketches_shed = max(cursor.sketches_shed, reduced.sketches_shed)
        cursor.samples_dropped = max(cursor.samples_dropped, reduced.samples_dropped)
        cursor.events_dropped = max(cursor.events_dropped, reduced.events_dropped)


def mark_unstorable(
    session: Session, device_id: str, batch: TelemetryBatch | PartialBatch, now: float
) -> PartialBatch:
    """The batch with each record that cannot be inserted marked as unusable; inserts nothing.

    Raises OperationalError when the database cannot be written at all.
    """
    marked: list[Record | UnusableRecord] = []
    for record in batch.records:
        trial = session.begin_nested()
        try:
            rows = Rows()
            _add_row(device_id, batch.epoch, record, now, rows)
            insert_rows(session, rows)
            marked.append(record)
        except OperationalError:
            raise
        except STORE_ERRORS as error:
            marked.append(UnusableRecord(record.sequence, f"{type(error).__name__}: {error}"))
        finally:
            trial.rollback()
    return PartialBatch(batch.epoch, batch.base, tuple(marked), batch.said, batch.reduced)


def _inserting(rows: type[Base]) -> Prepared:
    """All columns but the number that the database gives."""
    table = table_of(rows)
    names = [column.name for column in table.c if column.name != "id"]
    values: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in names}
    return Prepared(insert(table).inline().values(values))


_ADD_WINDOWS: Final = _inserting(Window)
_ADD_SHADOWS: Final = _inserting(ShadowWindow)
_ADD_SAMPLES: Final = _inserting(Sample)
_ADD_EVENTS: Final = _inserting(Event)


def insert_rows(session: Session, rows: Rows) -> None:
    _ADD_WINDOWS.run(session, rows.windows)
    _ADD_SHADOWS.run(session, rows.shadows)
    _ADD_SAMPLES.run(session, rows.samples)
    _ADD_EVENTS.run(session, rows.events)


_CURSOR: Final = table_of(TelemetryCursor).c
_CURSORS: Final = Prepared(
    select(_CURSOR.device_id, _CURSOR.epoch, *(_CURSOR[name] for name in _NUMBERS)).where(
        _CURSOR.device_id.in_(bindparam("ids", expanding=True)),
        _CURSOR.epoch.concat("").in_(bindparam("epochs", expanding=True)),
    )
)
"""A little more than is asked for. SQLite scans the whole table for pairs, and probes each id with
each epoch where both could be looked up; an expression cannot be."""
_ADD_CURSORS: Final = _inserting(TelemetryCursor)
_MOVE_CURSORS: Final = Prepared(
    update(table_of(TelemetryCursor))
    .where(_CURSOR.device_id == bindparam("of_device"), _CURSOR.epoch == bindparam("of_epoch"))
    .values({name: bindparam(name) for name in _NUMBERS})
)


def load_cursors(
    session: Session, boots: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Cursor]:
    """Of (device, epoch) pairs; a boot that was never heard of gets a new one."""
    cursors = {boot: Cursor(*boot) for boot in boots}
    ordered = sorted(boots)
    for first in range(0, len(ordered), CURSORS_A_QUERY):
        some = ordered[first : first + CURSORS_A_QUERY]
        named = {"ids": [boot[0] for boot in some], "epochs": [boot[1] for boot in some]}
        for row in _CURSORS.rows(session, **named):
            if (row[0], row[1]) in cursors:
                numbers: dict[str, int] = dict(zip(_NUMBERS, row[2:], strict=True))
                cursors[row[0], row[1]] = Cursor(row[0], row[1], is_new=False, **numbers)
    return cursors


def save_cursors(session: Session, cursors: Iterable[Cursor]) -> None:
    new, moved = [], []
    for cursor in cursors:
        numbers = cursor.numbers()
        if cursor.is_new:
            new.append({"device_id": cursor.device_id, "epoch": cursor.epoch} | numbers)
        else:
            moved.append({"of_device": cursor.device_id, "of_epoch": cursor.epoch} | numbers)
    _ADD_CURSORS.run(session, new)
    _MOVE_CURSORS.run(session, moved)


def strangers(session: Session, limit: int) -> list[str]:
    """Of whom there is telemetry, and no device: their hello never came."""
    query = (
        select(TelemetryCursor.device_id)
        .where(TelemetryCursor.device_id.not_in(select(Device.id)))
        .distinct()
        .order_by(TelemetryCursor.device_id)
        .limit(limit)
    )
    return list(session.scalars(query))


def cursors(session: Session, device_id: str) -> Sequence[TelemetryCursor]:
    query = select(TelemetryCursor).where(TelemetryCursor.device_id == device_id)
    return session.scalars(query.order_by(TelemetryCursor.epoch)).all()


def windows_after(
    session: Session, slot: str, manifest_digest: str, window_id: int
) -> Iterator[Window]:
    """Windows of a version on a slot with a greater id, in order; read READ_ROWS at a time."""
    query = (
        select(Window)
        .where(
            Window.manifest_digest == manifest_digest,
            Window.id > window_id,
            Window.slot == slot,
        )
        .order_by(Window.id)
        .execution_options(yield_per=READ_ROWS)
    )
    yield from session.scalars(query)


_LAST_WINDOW: Final = Prepared(select(func.max(table_of(Window).c.id)))


def last_window_id(session: Session) -> int:
    return _LAST_WINDOW.scalar(session) or 0


_WINDOW: Final = table_of(Window).c
_LAST_THROUGH: Final = Prepared(
    select(_WINDOW.id, _WINDOW.received_at)
    .where(_WINDOW.id <= bindparam("through"))
    .order_by(_WINDOW.id.desc())
    .limit(1)
)
_COMPARED: Final = Prepared(
    select(
        _WINDOW.device_id,
        _WINDOW.body["comparison"]["shadow"]["manifest_digest"].as_string(),
        _WINDOW.compared,
        _WINDOW.disagreements,
    )
    .where(
        _WINDOW.manifest_digest == bindparam("digest"),
        _WINDOW.slot == bindparam("slot"),
        _WINDOW.id > bindparam("after"),
        _WINDOW.received_at >= bindparam("since"),
        _WINDOW.compared > 0,
    )
    .order_by(_WINDOW.id)
)


@dataclass(frozen=True, slots=True)
class DeviceWindow:
    """What the gates read of a window."""

    device_id: str
    manifest_digest: str
    examples: int
    errors: int
    nonfinite: int
    latency_p95_us: float
    memory_bytes: int
    compared: int
    confidence: Sequence[int]
    predictions: Sequence[int]


def windows_between(
    session: Session, slot: str, after_id: int, through_id: int
) -> Iterator[tuple[int, str]]:
    """(id, device) of windows on a slot, of any version, in the order in which they came."""
    query = (
        select(Window.id, Window.device_id)
        .where(Window.id > after_id, Window.id <= through_id, Window.slot == slot)
        .order_by(Window.id)
        .execution_options(yield_per=READ_ROWS)
    )
    yield from ((window_id, device_id) for window_id, device_id in session.execute(query))


def device_windows(session: Session, ids: Sequence[int]) -> Iterator[DeviceWindow]:
    """The windows of those ids, which ascend; READ_ROWS at a time."""
    query = select(
        Window.device_id,
        Window.manifest_digest,
        Window.count.label("count_"),  # a row has a method of that name
        Window.errors,
        Window.nonfinite,
        Window.latency_p95_us,
        Window.memory_bytes,
        Window.compared,
        Window.body,
    ).order_by(Window.id)
    for first in range(0, len(ids), READ_ROWS):
        some = query.where(Window.id.in_(ids[first : first + READ_ROWS]))
        for row in session.execute(some):
            yield DeviceWindow(
                device_id=row.device_id,
                manifest_digest=row.manifest_digest,
                examples=row.count_,
                errors=row.errors,
                nonfinite=row.nonfinite,
                latency_p95_us=row.latency_p95_us,
                memory_bytes=row.memory_bytes,
                compared=row.compared,
                confidence=row.body.get("confidence", ()),
                predictions=row.body.get("predictions", ()),
            )


def last_window_before(session: Session, received_at: float) -> int:
    """The id of the last window that came before then; 0: none.

    Ids grow with the time of receipt, so a few look-ups by id find it in any number of windows.
    """
    low, high = 0, last_window_id(session)
    while low < high:
        middle = (low + high + 1) // 2
        found = _LAST_THROUGH.rows(session, through=middle)
        if not found or found[0][1] < received_at:
            low = middle
        else:
            high = found[0][0] - 1
    return low


def compared_windows(
    session: Session, slot: str, manifest_digest: str, since: float, after_id: int
) -> Sequence[tuple[str, str, int, int]]:
    """(device, digest in shadow, compared, disagreements) of a version's windows with a greater id,
    as they came."""
    found = _COMPARED.rows(session, digest=manifest_digest, slot=slot, after=after_id, since=since)
    return [(device, str(digest), n, d) for device, digest, n, d in found]


def _add_row(
    device_id: str, epoch: str, record: Record | UnusableRecord, now: float, rows: Rows
) -> None:
    if isinstance(record, UnusableRecord):
        data = {"reason": record.reason[:TEXT_MAX_CHARS], "record": record.sequence}
        rows.add_event(now, "message.refused", device_id, data, (device_id, epoch, record.sequence))
        return
    body = record.body
    numbered = {"device_id": device_id, "epoch": epoch, "sequence": record.sequence}
    if isinstance(body, WindowSummary):
        rows.windows.append(numbered | _window_row(body, now))
    elif isinstance(body, ShadowSummary):
        rows.shadows.append(numbered | _shadow_row(body, now))
    elif isinstance(body, DeviceEvent):
        data = body.model_dump(mode="json", exclude={"kind", "name"})
        number = (device_id, epoch, record.sequence)
        rows.add_event(now, f"device.{body.name}", device_id, data, number)
    else:
        rows.samples.append(numbered | _sample_row(body, now))


def _window_row(body: WindowSummary, now: float) -> dict[str, Any]:
    comparison = body.comparison
    return {
        "received_at": now,
        "slot": body.slot,
        "manifest_digest": body.version.manifest_digest,
        "device_started_at": body.started_at,
        "device_ended_at": body.ended_at,
        "count": body.count,
        "errors": body.errors,
        "nonfinite": body.nonfinite,
        "latency_p50_us": body.latency_p50_us,
        "latency_p95_us": body.latency_p95_us,
        "memory_bytes": body.memory_bytes,
        "compared": comparison.count if comparison else 0,
        "disagreements": comparison.disagreements if comparison else 0,
        "body": JsonText(body.model_dump_json(exclude={"sketches"})),
        "sketches": JsonText(body.sketches.model_dump_json()) if body.sketches else None,
    }


def _shadow_row(body: ShadowSummary, now: float) -> dict[str, Any]:
    window = body.window
    return {
        "received_at": now,
        "slot": window.slot,
        "manifest_digest": window.version.manifest_digest,
        "champion_digest": body.champion.manifest_digest,
        "count": window.count,
        "errors": window.errors,
        "nonfinite": window.nonfinite,
        "disagreements": body.disagreements,
        "skipped": body.skipped,
        "cpu_s": body.cpu_s,
        "span_s": max(0.0, window.ended_at - window.started_at),
        "latency_p95_us": window.latency_p95_us,
        "memory_bytes": window.memory_bytes,
        "body": JsonText(body.model_dump_json(exclude={"window": {"sketches"}})),
    }


def _sample_row(body: messages.Sample, now: float) -> dict[str, Any]:
    return {
        "received_at": now,
        "slot": body.slot,
        "manifest_digest": body.version.manifest_digest,
        "device_taken_at": body.taken_at,
        "reference": body.reference,
        "features": _float32(body.features),
        "prediction": body.prediction,
        "confidence": body.confidence,
        "shadow_digest": body.shadow.manifest_digest if body.shadow else None,
        "shadow_prediction": body.shadow_prediction,
    }


def _float32(features: Sequence[float | None]) -> bytes:
    """Little-endian; what is beyond float32 becomes its largest, not an infinity; what the device
    keeps private becomes NaN."""
    values = [math.nan if value is None else value for value in features]
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        bounded = (min(max(value, -_FLOAT32_MAX), _FLOAT32_MAX) for value in values)
        return struct.pack(f"<{len(values)}f", *bounded)
