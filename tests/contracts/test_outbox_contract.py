"""The Outbox port's contract (EL-TEL), on the real adapter and on the twin."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop_agent.errors import OutboxUnavailableError, RecordTooLargeError
from edgeloop_agent.shell.outbox import DAMAGED, SqliteOutbox
from edgeloop_agent.shell.outbox_file import open_outbox
from edgeloop_agent.shell.outbox_schema import make_schema
from edgeloop_protocol.limits import BATCH_RECORDS_MAX, BATCH_TARGET_BYTES, PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    DeviceEvent,
    Sample,
    Sketches,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode_telemetry,
)
from edgeloop_simulators.twins.outbox import MemoryOutbox

VERSION = VersionRef(name="m", version="1", manifest_digest="1" * 64)


class SqliteCase:
    def __init__(self, directory):
        self.directory = directory
        self.outbox = None

    def open(self, max_bytes=10**6):
        if self.outbox is not None:
            self.outbox.close()
        self.outbox = open_outbox(self.directory, max_bytes)
        return self.outbox

    def close(self):
        if self.outbox is not None:
            self.outbox.close()


class ConnectionCase:
    """The real outbox on a database that a simulator owns: opened again, a new epoch."""

    def __init__(self):
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        make_schema(self.database)
        self.outbox = None
        self.boots = 0

    def open(self, max_bytes=10**6):
        self.boots += 1
        self.outbox = SqliteOutbox(self.database, f"{self.boots:016x}", max_bytes)
        return self.outbox

    def close(self):
        self.database.close()


class MemoryCase:
    def __init__(self):
        self.outbox = None
        self.boots = 0

    def open(self, max_bytes=10**6):
        self.boots += 1
        epoch = f"{self.boots:016x}"
        if self.outbox is None:
            self.outbox = MemoryOutbox(epoch, max_bytes)
        else:
            self.outbox.restart(epoch)
        return self.outbox

    def close(self):
        pass


@pytest.fixture(params=["file", "connection", "memory"])
def case(request, tmp_path):
    cases = {"connection": ConnectionCase, "memory": MemoryCase}
    made = SqliteCase(tmp_path) if request.param == "file" else cases[request.param]()
    yield made
    made.close()


def event(number, size=0):
    return DeviceEvent(at=1.0, name=f"e{number}", detail="x" * size).model_dump_json().encode()


def sample(features):
    made = Sample(
        slot="main",
        version=VERSION,
        taken_at=1.0,
        reference="r",
        features=(0.123456789012345,) * features,
        prediction=0,
        confidence=1.0,
    )
    return made.model_dump_json().encode()


def sequences(batch):
    return list(range(batch.base, batch.base + len(batch.documents)))


def test_an_empty_outbox_has_no_batch(case):
    outbox = case.open()
    assert outbox.next_batch() is None
    assert outbox.totals().held_bytes == 0
    assert len(outbox.epoch) == 16


def test_records_are_numbered_from_1_and_stay_until_acknowledged(case):
    """EL-TEL-1, EL-TEL-3."""
    outbox = case.open()
    outbox.append([event(1), event(2)])
    outbox.append([event(3)])
    for _ in range(2):
        batch = outbox.next_batch()
        assert sequences(batch) == [1, 2, 3]
        assert batch.base == 1
        assert batch.documents == (event(1), event(2), event(3))
    assert outbox.acknowledge(outbox.epoch, 2) == 2
    assert outbox.acknowledge(outbox.epoch, 2) == 0
    assert outbox.acknowledge(outbox.epoch, 1) == 0
    assert (outbox.next_batch().base, sequences(outbox.next_batch())) == (3, [3])
    assert outbox.acknowledge(outbox.epoch, 3) == 1
    assert outbox.next_batch() is None
    assert outbox.totals().held_bytes == 0


def test_older_epochs_are_sent_first(case):
    first = case.open()
    first_epoch = first.epoch
    first.append([event(1), event(2)])
    second = case.open()
    assert second.epoch != first_epoch
    second.append([event(3)])
    assert (second.next_batch().epoch, sequences(second.next_batch())) == (first_epoch, [1, 2])
    second.acknowledge(first_epoch, 2)
    assert (second.next_batch().epoch, sequences(second.next_batch())) == (second.epoch, [1])
    assert [(c.appended, c.dropped, c.acked, c.held) for c in second.counts(100)] == [
        (2, 0, 2, 0),
        (1, 0, 0, 1),
    ]


def test_the_bound_drops_the_oldest_and_counts_them(case):
    outbox = case.open(max_bytes=2000)
    dropped = sum(outbox.append([event(number, 300)]) for number in range(20))
    counts = outbox.counts(100)[-1]
    assert outbox.totals().held_bytes <= 2000
    assert dropped == counts.dropped == 20 - counts.held > 0
    batch = outbox.next_batch()
    assert sequences(batch) == list(range(dropped + 1, 21)), "without holes at the end"
    assert batch.base == dropped + 1


def window(number, size=0):
    made = WindowSummary(
        slot="main",
        version=VERSION,
        started_at=10.0 * number,
        ended_at=10.0 * number + 10.0,
        count=3,
        latency_p50_us=1.0,
        latency_p95_us=2.0,
        predictions=(1, 2),
        sketches=Sketches(count=3, features=("A" * size,), confidence="A") if size else None,
    )
    return made.model_dump_json().encode()


def test_windows_are_merged_before_anything_is_dropped(case):
    """EL-TEL-7, EL-TEL-8. What the oldest batch can hold stays as it is, also after a boot."""
    bound = 2 * PAYLOAD_MAX_BYTES
    outbox = case.open(max_bytes=bound)
    number = 0
    for boot in range(2):
        while outbox.counts(1)[0].merged < 100:
            sealed = outbox.next_batch() if number else None
            outbox.append([window(number, 300)])
            assert sealed is None or outbox.next_batch().documents[: len(sealed.documents)] == (
                sealed.documents
            )
            number += 1
        if not boot:
            outbox = case.open(max_bytes=bound)
    totals, counts = outbox.totals(), outbox.counts(2)
    assert totals.held_bytes <= bound
    assert (totals.dropped, totals.merged) == (0, number - totals.held)
    assert totals.sketches_shed > 200
    assert all(epoch.appended == epoch.held + epoch.merged for epoch in counts)
    examples = batches = 0
    while batch := outbox.next_batch():
        batches += 1
        payload = encode_telemetry(batch.epoch, batch.base, batch.documents, None, batch.reduced)
        decoded = decode(TelemetryBatch, payload)
        examples += sum(record.body.count for record in decoded.records)
        assert decoded.reduced.sketches_shed
        outbox.acknowledge(batch.epoch, sequences(batch)[-1])
    assert examples == 3 * number, "each example came, once"
    assert batches < 20
    assert [epoch.acked for epoch in counts] == [0, 0]
    assert [epoch.acked for epoch in outbox.counts(2)] == [epoch.appended for epoch in counts]


def lost_at_the_controller(outbox):
    """What a controller counts that is told everything from here on: by cursor and `base`."""
    cursors, lost = {}, 0
    while batch := outbox.next_batch():
        lost += max(0, batch.base - 1 - cursors.get(batch.epoch, 0))
        cursors[batch.epoch] = sequences(batch)[-1]
        outbox.acknowledge(batch.epoch, cursors[batch.epoch])
    return lost


def test_all_that_the_bound_drops_is_counted_as_lost_also_of_an_older_boot(case):
    """EL-TEL-5."""
    for boot in range(4):
        outbox = case.open(max_bytes=2000)
        dropped = sum(outbox.append([event(number, 300)]) for number in range(10 * boot + 1))
        assert outbox.totals().held_bytes <= 2000
    assert dropped > 10
    assert len(outbox.counts(100)) == 4
    assert all(epoch.held for epoch in outbox.counts(100)), "the last of each boot is kept longest"
    total = outbox.totals().dropped
    assert total == sum(epoch.dropped for epoch in outbox.counts(100))
    assert lost_at_the_controller(outbox) == total


def test_a_bound_too_small_even_for_the_last_ones_still_holds(case):
    for _ in range(6):
        outbox = case.open(max_bytes=900)
        outbox.append([event(1, 300)])
        assert outbox.totals().held_bytes <= 900
    assert [epoch.held for epoch in outbox.counts(100)] == [0, 0, 0, 0, 1, 1]


def test_counts_are_of_the_newest_and_totals_of_all(case):
    for _ in range(5):
        outbox = case.open()
        outbox.append([event(1), event(2)])
    assert [epoch.epoch for epoch in outbox.counts(1)] == [outbox.epoch]
    assert outbox.counts(2) == outbox.counts(100)[-2:]
    assert outbox.totals().held == 10


def test_the_budget_is_stored_with_the_records(case):
    assert case.open().load_budget() is None
    case.outbox.append([event(1)], 12.5)
    case.outbox.append([event(2)])
    assert case.open().load_budget() == 12.5


def test_an_acknowledgement_of_what_never_was_is_harmless(case):
    outbox = case.open()
    outbox.append([event(1)])
    assert outbox.acknowledge("f" * 16, 9) == 0
    assert outbox.acknowledge(outbox.epoch, 10**9) == 1
    outbox.append([event(2)])
    assert sequences(outbox.next_batch()) == [2], "later records are not acknowledged by it"
    assert outbox.counts(100)[-1].acked == 1


def test_batches_are_bounded_in_records_and_bytes(case):
    outbox = case.open()
    outbox.append([event(number) for number in range(BATCH_RECORDS_MAX + 10)])
    assert len(outbox.next_batch().documents) == BATCH_RECORDS_MAX
    outbox.acknowledge(outbox.epoch, BATCH_RECORDS_MAX + 10)
    outbox.append([sample(1000) for _ in range(40)])
    batch = outbox.next_batch()
    assert 1 <= len(batch.documents) < 40
    assert sum(map(len, batch.documents)) <= BATCH_TARGET_BYTES


def test_a_record_that_no_message_could_carry_is_refused_alone(case):
    outbox = case.open()
    giant = b"9" * PAYLOAD_MAX_BYTES
    with pytest.raises(RecordTooLargeError, match="the limit is"):
        outbox.append([event(1), giant])
    assert outbox.next_batch() is None
    outbox.append([event(2)])
    assert sequences(outbox.next_batch()) == [1]


def test_any_order_of_appends_acks_and_boots_is_the_same_for_both(tmp_path_factory):
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("apb"), st.integers(0, 6)), max_size=25))
    def agree(steps):
        real = SqliteCase(tmp_path_factory.mktemp("outbox"))
        cases = (real, MemoryCase())
        epochs = ([], [])
        for case, opened in zip(cases, epochs, strict=True):
            opened.append(case.open(2500).epoch)
        for action, number in steps:
            seen = []
            for case, opened in zip(cases, epochs, strict=True):
                outbox = case.outbox
                if action == "a":
                    outbox.append([event(n, 100) for n in range(number)])
                elif action == "p":
                    outbox.acknowledge(opened[number % len(opened)], number)
                else:
                    opened.append(case.open(2500).epoch)
                outbox = case.outbox
                batch = outbox.next_batch()
                seen.append(
                    (
                        [(c.appended, c.dropped, c.acked, c.held) for c in outbox.counts(100)],
                        outbox.totals(),
                        batch and (opened.index(batch.epoch), batch.base, sequences(batch)),
                    )
                )
            assert seen[0] == seen[1]
        real.close()

    agree()


def test_a_damaged_file_is_kept_aside_and_the_agent_goes_on(tmp_path):
    (tmp_path / "outbox.sqlite").write_bytes(b"this is not a database, whatever its name" * 100)
    outbox = open_outbox(tmp_path, 10**6)
    assert "kept as outbox.corrupt-1" in outbox.problem
    assert (tmp_path / "outbox.corrupt-1").read_bytes().startswith(b"this is not")
    outbox.append([event(1)])
    assert sequences(outbox.next_batch()) == [1]
    outbox.close()


def test_a_full_disk_raises_and_changes_nothing(tmp_path):
    outbox = open_outbox(tmp_path, 10**8)
    outbox.append([event(1)])
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutboxUnavailableError, match="full"):
        outbox.append([event(n, 400) for n in range(100)])
    assert sequences(outbox.next_batch()) == [1]
    outbox._database.execute("PRAGMA max_page_count=100000")
    outbox.append([event(2)])
    assert sequences(outbox.next_batch()) == [1, 2], "and without a hole"
    outbox.close()


def test_a_record_that_the_disk_damaged_holds_up_no_other(tmp_path):
    outbox = open_outbox(tmp_path, 10**6)
    outbox.append([event(1), event(2), event(3)])
    outbox._database.execute(
        "UPDATE records SET document = ? WHERE sequence = 2", (event(2)[:9] + b"\xff",)
    )
    batch = outbox.next_batch()
    assert (batch.base, batch.documents) == (1, (event(1), DAMAGED, event(3)))
    payload = encode_telemetry(batch.epoch, batch.base, batch.documents)
    names = [record.body.name for record in decode(TelemetryBatch, payload).records]
    assert names == ["e1", "record_damaged", "e3"]
    outbox.close()
