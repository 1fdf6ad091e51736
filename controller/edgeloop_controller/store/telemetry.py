"""Telemetry into the tables, exactly once, and the queries over windows.

Invariants: rows and the cursor of their (device, epoch) move in one transaction, so the cursor's
`through` says exactly which records are stored, refused or known to be lost. A record that cannot
be used is refused by an event in its place, under its number: it never holds up those behind it.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import insert, select, tuple_
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from edgeloop_controller.store.tables import Event, Sample, TelemetryCursor, Window
from edgeloop_protocol import messages
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import DeviceEvent, Record, Said, TelemetryBatch, WindowSummary

STORE_ERRORS: Final = (SQLAlchemyError, ValueError, OverflowError)
"""What values that no column holds raise, an OperationalError (try again later) apart."""

READ_ROWS: Final = 1000
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass
class Rows:
    """Rows that wait for one bulk insert at the end of the transaction."""

    windows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


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


@dataclass(frozen=True)
class Taken:
    """What became of one batch; `through` is what to acknowledge."""

    through: int
    stored: int
    refused: int
    duplicates: int
    lost: int
    gap: bool


def take_batch(
    session: Session,
    device_id: str,
    batch: TelemetryBatch | PartialBatch,
    now: float,
    rows: Rows,
) -> Taken:
    """Move the cursor over `batch` and add its new records to `rows`.

    Records at or below the cursor are duplicates. Sequences between the cursor and `base` were
    dropped by the device's outbox: counted as lost, once. A batch that starts above the cursor
    although the device still holds what lies between is refused (`gap`): the acknowledgement of
    what is here makes the device send from there.
    """
    cursor = session.get(TelemetryCursor, (device_id, batch.epoch))
    if cursor is None:
        cursor = TelemetryCursor(
            device_id=device_id, epoch=batch.epoch, through=0, lost=0, duplicates=0
        )
        session.add(cursor)
    lost = max(0, batch.base - 1 - cursor.through)
    cursor.lost += lost
    cursor.through += lost
    new: list[Record | UnusableRecord] = [
        record for record in batch.records if record.sequence > cursor.through
    ]
    duplicates = len(batch.records) - len(new)
    cursor.duplicates += duplicates
    gap = bool(new) and new[0].sequence > cursor.through + 1
    if new and not gap:
        for record in new:
            _add_row(device_id, batch.epoch, record, now, rows)
        cursor.through = new[-1].sequence
    taken = [] if gap else new
    refused = sum(isinstance(record, UnusableRecord) for record in taken)
    return Taken(cursor.through, len(taken) - refused, refused, duplicates, lost, gap)


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
    return PartialBatch(batch.epoch, batch.base, tuple(marked), batch.said)


def insert_rows(session: Session, rows: Rows) -> None:
    session.flush()
    if rows.windows:
        session.execute(insert(Window), rows.windows)
    if rows.samples:
        session.execute(insert(Sample), rows.samples)
    if rows.events:
        session.execute(insert(Event), rows.events)


def cursors_of(session: Session, boots: Collection[tuple[str, str]]) -> Sequence[TelemetryCursor]:
    """Of (device, epoch) pairs."""
    key = tuple_(TelemetryCursor.device_id, TelemetryCursor.epoch)
    return session.scalars(select(TelemetryCursor).where(key.in_(boots))).all()


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


def compared_windows(
    session: Session, slot: str, manifest_digest: str, since: float
) -> Sequence[tuple[str, str, int, int]]:
    """(device, digest in shadow, compared, disagreements) of a version's windows, as they came."""
    shadow = Window.body["comparison"]["shadow"]["manifest_digest"].as_string()
    query = (
        select(Window.device_id, shadow, Window.compared, Window.disagreements)
        .where(
            Window.manifest_digest == manifest_digest,
            Window.received_at >= since,
            Window.slot == slot,
            Window.compared > 0,
        )
        .order_by(Window.id)
    )
    return [(device, str(digest), n, d) for device, digest, n, d in session.execute(query)]


def _add_row(
    device_id: str, epoch: str, record: Record | UnusableRecord, now: float, rows: Rows
) -> None:
    numbered = {"device_id": device_id, "epoch": epoch, "sequence": record.sequence}
    if isinstance(record, UnusableRecord):
        data = {"reason": record.reason[:TEXT_MAX_CHARS], "record": record.sequence}
        refused = {"at": now, "kind": "message.refused", "subject": device_id, "data": data}
        rows.events.append(numbered | refused)
        return
    body = record.body
    if isinstance(body, WindowSummary):
        rows.windows.append(numbered | _window_row(body, now))
    elif isinstance(body, DeviceEvent):
        data = body.model_dump(mode="json", exclude={"kind", "name"})
        kind = f"device.{body.name}"
        rows.events.append(numbered | {"at": now, "kind": kind, "subject": device_id, "data": data})
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
        "body": body.model_dump(mode="json", exclude={"sketches"}),
        "sketches": body.sketches.model_dump(mode="json") if body.sketches else None,
    }


def _sample_row(body: messages.Sample, now: float) -> dict[str, Any]:
    bounded = np.clip(np.asarray(body.features, dtype=np.float64), -_FLOAT32_MAX, _FLOAT32_MAX)
    return {
        "received_at": now,
        "slot": body.slot,
        "manifest_digest": body.version.manifest_digest,
        "device_taken_at": body.taken_at,
        "reference": body.reference,
        "features": bounded.astype("<f4").tobytes(),
        "prediction": body.prediction,
        "confidence": body.confidence,
        "shadow_digest": body.shadow.manifest_digest if body.shadow else None,
        "shadow_prediction": body.shadow_prediction,
    }
