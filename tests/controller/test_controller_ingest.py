"""Ingest: each record once, acknowledged after its commit; bad messages hold up nobody."""

import json
import threading
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from edgeloop_controller import composition
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.services import ingest as module
from edgeloop_controller.services.inbox import Inbound, Inbox
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Device, Event, Sample, TelemetryCursor, Window
from edgeloop_controller.store.telemetry import Rows
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    Comparison,
    Presence,
    Record,
    Reduced,
    Sketches,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.messages import Sample as SampleMessage
from edgeloop_protocol.topics import Up, up_topic
from edgeloop_simulators.twins.clock import SimulatedClock

EPOCH = "a" * 16
VERSION = VersionRef(name="tiny", version="1", manifest_digest="1" * 64)
OLD = VersionRef(name="tiny", version="0", manifest_digest="0" * 64)


def _stored(database: Database, device_id: str = "d1") -> list[int]:
    with database.reading() as session:
        query = select(Event.sequence).where(Event.device_id == device_id).order_by(Event.sequence)
        return [int(s) for s in session.scalars(query) if s is not None]


def _cursor(database: Database) -> TelemetryCursor:
    with database.reading() as session:
        cursor = session.get(TelemetryCursor, ("d1", EPOCH))
        assert cursor is not None
        return cursor


def test_hello_makes_a_device(controller: Any, database: Database, make_device: Any) -> None:
    controller.takes(make_device("d1", labels={"site": "lab"}).hello())
    with database.reading() as session:
        device = session.get(Device, "d1")
        assert device is not None
        assert device.online
        assert device.agent_labels == {"site": "lab"}
        assert device.bytes_up > 100
    assert controller.broker.desired("d1") == []


def test_records_are_stored_and_acknowledged(
    controller: Any, database: Database, telemetry: Any
) -> None:
    controller.takes(telemetry("d1", EPOCH, 1, 3))
    assert _stored(database) == [1, 2, 3]
    assert [a.through for a in controller.broker.acks("d1")] == [3]


def test_windows_and_samples_are_stored_as_said(controller: Any, database: Database) -> None:
    window = WindowSummary(
        slot="main",
        version=VERSION,
        started_at=1.0,
        ended_at=2.0,
        count=5,
        latency_p50_us=1.0,
        latency_p95_us=2.0,
        predictions=(5, 0),
        confidence=(1, 4),
        features=((1, 4),),
        sketches=Sketches(count=5, features=("AA==",), confidence="AA=="),
        comparison=Comparison(shadow=OLD, count=5, disagreements=2),
    )
    sample = SampleMessage(
        slot="main",
        version=VERSION,
        taken_at=1.5,
        reference="r1",
        features=(0.5, 1e300),
        prediction=1,
        confidence=0.9,
        shadow=OLD,
        shadow_prediction=0,
    )
    records = (Record(sequence=1, body=window), Record(sequence=2, body=sample))
    batch = TelemetryBatch(epoch=EPOCH, base=1, records=records)
    controller.takes(Inbound(up_topic("d1", Up.TELEMETRY), encode(batch)))
    with database.reading() as session:
        row = session.scalars(select(Window)).one()
        assert (row.compared, row.disagreements, row.count) == (5, 2, 5)
        assert row.sketches is not None
        assert "sketches" not in row.body
        kept = session.scalars(select(Sample)).one()
        assert kept.features[:4] == b"\x00\x00\x00\x3f"
        assert kept.features[4:] == b"\xff\xff\x7f\x7f"  # the largest float32, not infinity
        assert kept.shadow_digest == OLD.manifest_digest


def test_duplicates_are_ignored_and_counted(
    controller: Any, database: Database, telemetry: Any
) -> None:
    first = telemetry("d1", EPOCH, 1, 3)
    controller.takes(first, first, telemetry("d1", EPOCH, 2, 4))
    assert _stored(database) == [1, 2, 3, 4, 5]
    assert _cursor(database).duplicates == 5
    assert [a.through for a in controller.broker.acks("d1")] == [5]


def test_a_batch_above_the_cursor_is_refused_and_asked_for_again(
    controller: Any, database: Database, telemetry: Any
) -> None:
    """EL-TEL-4."""
    controller.takes(telemetry("d1", EPOCH, 4, 2, base=1))
    assert _stored(database) == []
    assert controller.broker.acks("d1")[-1].through == 0
    assert controller.parts.services.ingest.counters.gaps == 1


def test_what_the_outbox_dropped_is_lost_once(
    controller: Any, database: Database, telemetry: Any
) -> None:
    """EL-TEL-5."""
    controller.takes(telemetry("d1", EPOCH, 1, 2))
    dropped = telemetry("d1", EPOCH, 6, 2, base=6)
    controller.takes(dropped)
    controller.takes(dropped)
    assert _stored(database) == [1, 2, 6, 7]
    assert _cursor(database).lost == 3


def _window_batch(first: int, *windows: int, reduced: Reduced | None = None) -> Inbound:
    """Windows from `first` on, in which so many are merged; what lies before them is gone."""
    records = tuple(
        Record(
            sequence=first + place,
            body=WindowSummary(
                slot="main",
                version=VERSION,
                windows=count,
                started_at=0.0,
                ended_at=10.0 * count,
                count=5 * count,
                latency_p50_us=1.0,
                latency_p95_us=2.0,
            ),
        )
        for place, count in enumerate(windows)
    )
    batch = TelemetryBatch(epoch=EPOCH, base=first, reduced=reduced, records=records)
    return Inbound(up_topic("d1", Up.TELEMETRY), encode(batch))


def test_what_came_merged_is_not_lost(controller: Any, database: Database, telemetry: Any) -> None:
    """EL-TEL-8: 60 windows are 3 now, and 2 records were dropped."""
    controller.takes(telemetry("d1", EPOCH, 1, 2))
    reduced = Reduced(sketches_shed=10, samples_dropped=2)
    batch = _window_batch(62, 20, 20, 20, reduced=reduced)
    controller.takes(batch, batch)
    cursor = _cursor(database)
    assert (cursor.through, cursor.merged, cursor.lost, cursor.duplicates) == (64, 57, 2, 3)
    assert cursor.through == 2 + 3 + cursor.merged + cursor.lost
    assert (cursor.sketches_shed, cursor.samples_dropped, cursor.events_dropped) == (10, 2, 0)
    counters = controller.parts.services.ingest.counters
    assert (counters.merged, counters.lost) == (57, 2)
    with database.reading() as session:
        assert session.scalar(select(func.sum(Window.count))) == 300


def test_a_device_cannot_have_merged_more_than_is_gone(
    controller: Any, database: Database, telemetry: Any
) -> None:
    controller.takes(telemetry("d1", EPOCH, 1, 2), _window_batch(5, 10**9))
    cursor = _cursor(database)
    assert (cursor.through, cursor.merged, cursor.lost) == (5, 2, 0)


def test_what_a_late_batch_says_of_what_was_given_up_takes_nothing_back(
    controller: Any, database: Database
) -> None:
    controller.takes(_window_batch(1, 1, reduced=Reduced(samples_dropped=5)))
    controller.takes(_window_batch(1, 1, reduced=Reduced(samples_dropped=3, events_dropped=1)))
    cursor = _cursor(database)
    assert (cursor.samples_dropped, cursor.events_dropped) == (5, 1)


def test_boots_are_counted_apart(controller: Any, database: Database, telemetry: Any) -> None:
    controller.takes(telemetry("d1", EPOCH, 1, 2), telemetry("d1", "b" * 16, 1, 2))
    assert _stored(database) == [1, 1, 2, 2]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # `telemetry` is a function
)
@given(
    cuts=st.lists(st.integers(1, 30), max_size=6),
    order=st.randoms(use_true_random=False),
    copies=st.lists(st.integers(0, 6), max_size=8),
)
def test_any_order_and_repetition_ends_with_each_record_once(
    telemetry: Any, cuts: list[int], order: Any, copies: list[int]
) -> None:
    """EL-TEL-2."""
    edges = sorted({0, 30, *cuts})
    batches = [telemetry("d1", EPOCH, a + 1, b - a) for a, b in pairwise(edges)]
    sent = batches + [batches[c % len(batches)] for c in copies]
    order.shuffle(sent)
    with TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/db.sqlite")
        config = ControllerConfig(data_dir=Path(directory))
        ingest = composition.build(
            config,
            database,
            _Deaf(),
            SystemClock(),
            LocalArtifactStore(config.artifacts_dir),
            LocalExecutor(),
        ).services.ingest
        for message in sent:
            ingest.process([message])
        for message in batches:  # the device sends again what was not acknowledged
            ingest.process([message])
        assert _stored(database) == list(range(1, 31))
        cursor = _cursor(database)
        assert (cursor.through, cursor.lost) == (30, 0)
        database.close()


class _Deaf:
    def publish(self, _topic: str, _payload: bytes) -> bool:
        return False


BAD = {
    "not json": b"{",
    "not utf-8": b"\xff\xfe",
    "empty": b"",
    "wrong shape": b'{"kind": "x"}',
    "a list": b"[1, 2]",
    "nan": b'{"epoch": NaN}',
    "deep": b"[" * 100_000,
    "oversize": b"x" * (PAYLOAD_MAX_BYTES + 1),
}


@pytest.mark.parametrize("kind", list(Up))
@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_a_bad_message_holds_up_nobody(
    controller: Any, database: Database, telemetry: Any, kind: Up, payload: bytes
) -> None:
    """EL-MSG-4."""
    bad = Inbound(up_topic("d1", kind), payload)
    controller.takes(bad, telemetry("d2", EPOCH, 1, 2), bad)
    assert _stored(database, "d2") == [1, 2]
    assert controller.parts.services.ingest.counters.refused == 2
    with database.reading() as session:  # said once, not for each
        refused = select(func.count()).select_from(Event).where(Event.kind == "message.refused")
        assert session.scalar(refused) == 1


@pytest.mark.parametrize(
    "topic",
    ["edgeloop/v1/d1/up/what", "edgeloop/v1/D 1/up/hello", "edgeloop/v1/d1/down/ack", "x" * 2000],
)
def test_unknown_topics_are_counted(controller: Any, topic: str) -> None:
    controller.takes(Inbound(topic, b"{}"))
    assert controller.parts.services.ingest.counters.refused == 1


def test_a_hello_on_another_devices_topic_is_refused(
    controller: Any, database: Database, make_device: Any
) -> None:
    _topic, payload = make_device("d1").hello()
    controller.takes(Inbound(up_topic("d2", Up.HELLO), payload))
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Device)) == 0


WINDOW = {
    "kind": "window", "slot": "main", "version": VERSION.model_dump(), "started_at": 1.0,
    "ended_at": 2.0, "count": 5, "latency_p50_us": 1.0, "latency_p95_us": 2.0,
}  # fmt: skip
EVENT = {"kind": "event", "at": 0.0, "name": "fine"}
UNUSABLE = {
    "no 64-bit column holds it": (WINDOW | {"count": 2**70}, "too large"),
    "of a newer agent": ({"kind": "hologram", "beams": 3}, "'hologram'"),
    "not a number": (WINDOW | {"started_at": float("nan")}, "window.started_at"),
    "below zero": (WINDOW | {"count": -1}, "window.count"),
    "half a character": (EVENT | {"detail": "\ud800"}, "event.detail"),
    "nothing": (None, "document"),
}


def _batch(*bodies: Any, first: int = 1, **changes: Any) -> Inbound:
    records = [{"sequence": n, "body": body} for n, body in enumerate(bodies, start=first)]
    document = {"kind": "telemetry", "epoch": EPOCH, "base": 1, "records": records} | changes
    return Inbound(up_topic("d1", Up.TELEMETRY), json.dumps(document).encode())


@pytest.mark.parametrize(("body", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_stored_is_refused_record_by_record(
    controller: Any, database: Database, telemetry: Any, body: Any, reason: str
) -> None:
    """EL-TEL-6: EL-MSG-4: the device's outbox is not held up by it. EL-MSG-3."""
    poison = _batch(EVENT, body, WINDOW, EVENT)
    controller.takes(poison, telemetry("d2", EPOCH, 1, 2), poison)
    assert _stored(database, "d2") == [1, 2]
    assert _stored(database) == [1, 2, 4]
    assert {a.through for a in controller.broker.acks("d1")} == {4}
    assert controller.parts.services.ingest.counters.refused == 1
    with database.reading() as session:
        assert session.scalars(select(Window.sequence)).all() == [3]
        refused = session.scalars(select(Event).where(Event.kind == "message.refused")).one()
        assert (refused.device_id, refused.sequence) == ("d1", 2)
        assert reason in refused.data["reason"]


def test_all_that_is_wrong_with_a_batch_is_refused(controller: Any, database: Database) -> None:
    controller.takes(_batch({"kind": "new"}, WINDOW | {"count": 2**70}, EVENT))
    assert _stored(database) == [1, 2, 3]
    with database.reading() as session:
        kinds = session.scalars(select(Event.kind).order_by(Event.sequence)).all()
    assert kinds == ["message.refused", "message.refused", "device.fine"]
    assert _cursor(database).through == 3


@pytest.mark.parametrize(
    "changes",
    [{"epoch": "x"}, {"base": "one"}, {"base": 2**70}, {"records": [{"body": EVENT}]}],
    ids=["epoch", "base", "base out of range", "no sequence"],
)
def test_a_batch_whose_numbers_cannot_be_read_is_not_acknowledged(
    controller: Any, database: Database, telemetry: Any, changes: Any
) -> None:
    first = 2**70 + 1 if changes.get("base") == 2**70 else 1
    controller.takes(
        _batch({"kind": "new"}, EVENT, first=first, **changes), telemetry("d2", EPOCH, 1, 2)
    )
    assert _stored(database, "d2") == [1, 2]
    assert controller.broker.acks("d1") == []
    assert controller.parts.services.ingest.counters.refused == 1


def test_nothing_is_acknowledged_that_was_not_committed(
    controller: Any, database: Database, telemetry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EL-TEL-3."""

    def full(*_arguments: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("edgeloop_controller.services.ingest.insert_rows", full)
    with pytest.raises(OperationalError):
        controller.takes(telemetry("d1", EPOCH, 1, 3))
    assert controller.broker.said == []
    monkeypatch.undo()
    controller.takes(telemetry("d1", EPOCH, 1, 3))
    assert _stored(database) == [1, 2, 3]


def test_a_full_disk_is_tried_again_until_it_is_written(
    controller: Any, database: Database, telemetry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `run`, as the thread does it."""
    real, tries = module.insert_rows, []

    def full_twice(session: Session, rows: Rows) -> None:
        tries.append(1)
        if len(tries) <= 2:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        real(session, rows)

    monkeypatch.setattr(module, "insert_rows", full_twice)
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    services = controller.parts.services
    assert services.inbox.put(*telemetry("d1", EPOCH, 1, 3))
    services.inbox.close()
    services.ingest.run()
    assert len(tries) == 3
    assert _stored(database) == [1, 2, 3]
    assert [a.through for a in controller.broker.acks("d1")] == [3]


def test_presence_of_an_older_boot_says_nothing(
    controller: Any, database: Database, make_device: Any
) -> None:
    def online() -> bool:
        with database.reading() as session:
            device = session.get(Device, "d1")
            assert device is not None
            return device.online

    def gone(epoch: str) -> Inbound:
        return Inbound(up_topic("d1", Up.PRESENCE), encode(Presence(epoch=epoch, online=False)))

    device = make_device("d1")
    controller.takes(device.hello(), gone("c" * 16))
    assert online()
    controller.takes(gone(device.epoch))
    assert not online()
    controller.takes(device.reported())
    assert online()


def test_a_late_report_changes_nothing(
    controller: Any, database: Database, make_device: Any
) -> None:
    """EL-STATE-4."""
    device = make_device("d1")
    early = device.hello()
    late = device.hello()
    controller.takes(late, early)
    with database.reading() as session:
        row = session.get(Device, "d1")
        assert row is not None
        assert row.state_sequence == 2


def test_a_late_report_of_an_older_boot_changes_nothing_but_asks(
    controller: Any, database: Database, make_device: Any
) -> None:
    """EL-STATE-4."""
    older, newer = make_device("d1", epoch="0" * 16), make_device("d1", epoch="1" * 16)
    controller.takes(older.hello(), older.reported())
    late = older.reported()
    controller.takes(newer.hello(), late)
    with database.reading() as session:
        row = session.get(Device, "d1")
        assert row is not None
        assert row.epoch == "1" * 16
    assert controller.broker.desired("d1")[-1].wants_hello


def test_a_full_inbox_refuses_and_counts() -> None:
    inbox = Inbox(max_messages=2, max_bytes=1000)
    assert inbox.put("t", b"1")
    assert inbox.put("t", b"2")
    assert not inbox.put("t", b"3")
    assert [m.payload for m in inbox.take(10)] == [b"1", b"2"]
    assert not inbox.put("t", b"x" * 1000)
    assert inbox.put("t", b"4")
    assert inbox.refused == 2


def test_a_closed_inbox_gives_what_it_holds() -> None:
    inbox = Inbox(10, 1000)
    inbox.put("t", b"1")
    inbox.close()
    assert not inbox.put("t", b"2")
    assert inbox.wait()
    assert [m.payload for m in inbox.take(10)] == [b"1"]
    assert not inbox.wait()
    assert inbox.take(10) == []


def test_messages_that_come_together_are_written_together(
    controller: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the second comes while the first is already being looked at."""
    services, batches = controller.parts.services, []
    monkeypatch.setattr("edgeloop_controller.services.ingest.GATHER_S", 60.0)
    monkeypatch.setattr(
        services.ingest, "process", lambda batch: batches.append([m.payload for m in batch])
    )
    assert services.inbox.put("t", b"1")
    thread = threading.Thread(target=services.ingest.run)
    thread.start()
    assert services.inbox.put("t", b"2")
    services.ingest.stop()
    thread.join(10)
    assert batches == [[b"1", b"2"]]


def test_a_hello_that_was_lost_is_asked_for(
    controller: Any, database: Database, make_device: Any, telemetry: Any
) -> None:
    """EL-STATE-6."""
    topic, payload = telemetry("d1", EPOCH, 1, 2)
    controller.takes(Inbound(topic, _saying(payload, 1)))
    asked = controller.broker.desired("d1")
    assert [(d.revision, d.wants_hello) for d in asked] == [(0, True)]
    assert _stored(database) == [1, 2], "what it brought is stored all the same"
    controller.takes(make_device("d1", epoch=EPOCH).hello())
    topic, payload = telemetry("d1", EPOCH, 3, 3)
    controller.takes(Inbound(topic, _saying(payload, 1)))
    assert len(controller.broker.desired("d1")) == 1, "nothing is missing now"


def test_a_reported_that_was_lost_is_asked_for(
    controller: Any, make_device: Any, telemetry: Any
) -> None:
    """EL-STATE-6."""
    device = make_device("d1", epoch=EPOCH)
    controller.takes(device.hello())
    device.reported()  # and nobody hears it
    topic, payload = telemetry("d1", EPOCH, 1, 1)
    controller.takes(Inbound(topic, _saying(payload, 2)))
    assert [d.wants_hello for d in controller.broker.desired("d1")] == [True]


def test_a_hello_is_asked_for_until_it_comes_also_after_a_restart(
    controller: Any, database: Database, make_device: Any, telemetry: Any
) -> None:
    """EL-STATE-6."""
    topic, payload = telemetry("d1", EPOCH, 1, 2)
    controller.takes(Inbound(topic, _saying(payload, 1)))
    broker, clock = controller.broker, SimulatedClock()
    unheard = Unheard(database, broker, clock)
    unheard.ask_again()
    assert len(broker.desired("d1")) == 1, "a restart has forgotten it"
    unheard.look_for_strangers()
    unheard.ask_again()
    unheard.ask_again()
    assert len(broker.desired("d1")) == 2, "not twice at once"
    clock.advance(20.0)
    unheard.ask_again()
    assert len(broker.desired("d1")) == 3
    controller.takes(make_device("d1", epoch=EPOCH).hello())
    unheard.heard(["d1"])
    clock.advance(20.0)
    unheard.look_for_strangers()
    unheard.ask_again()
    assert len(broker.desired("d1")) == 3


def _saying(payload: bytes, sequence: int) -> bytes:
    return json.dumps(
        {**json.loads(payload), "said": {"epoch": EPOCH, "sequence": sequence}}
    ).encode()
