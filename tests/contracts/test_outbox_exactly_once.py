"""The outbox against the controller's own bookkeeping: whatever is sent, lost, repeated, killed and
merged, every example's count arrives exactly once or is counted as dropped (EL-TEL-2, EL-TEL-5,
EL-TEL-7, EL-TEL-8)."""

import copy
import sqlite3
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from edgeloop_agent.core.reduction import OutboxLimits
from edgeloop_agent.errors import OutboxUnavailableError
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_agent.shell.outbox_schema import make_schema
from edgeloop_controller.store.telemetry import Cursor, Rows, take_batch
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
from edgeloop_simulators.virtual.seeds.mutation import Edit, Mutant, plant

VERSION = VersionRef(name="m", version="1", manifest_digest="1" * 64)
STEPS_MAX = 60
LIMITS = OutboxLimits(
    batch_records_max=4,
    batch_bytes_max=2000,
    segment_rows_max=7,
    slack_share=0.0,
    aggregates_from_bytes=5000,
)
BOUNDS = (3000, 6000, 9000)
"""The first is too small to merge anything."""


class FailingOutbox(SqliteOutbox):
    """`fails`: the disk takes nothing more in the middle of making room."""

    fails = False

    def count(self, boot, tally):
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")
        super().count(boot, tally)


class RealDevice:
    def __init__(self, max_bytes):
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        make_schema(self.database)
        self.max_bytes = max_bytes
        self.boots = 0
        self.kill()

    def kill(self):
        """And boot again: nothing but the disk is left."""
        self.boots += 1
        epoch = f"{self.boots:016x}"
        self.outbox = FailingOutbox(self.database, epoch, self.max_bytes, limits=LIMITS)


class TwinDevice:
    def __init__(self, max_bytes):
        self.outbox = MemoryOutbox(f"{1:016x}", max_bytes, LIMITS)
        self.boots = 1

    def kill(self):
        self.boots += 1
        self.outbox.restart(f"{self.boots:016x}")


class Controller:
    """Its own `take_batch`; what is stored and its cursors move together, or not at all."""

    def __init__(self):
        self.cursors = {}
        self.rows = Rows()

    def take(self, payload, *, dies=False):
        """The acknowledgement; None: it died before its commit."""
        batch = decode(TelemetryBatch, payload)
        cursor = copy.copy(self.cursors.get(batch.epoch, Cursor("d", batch.epoch)))
        rows = copy.deepcopy(self.rows)
        taken = take_batch(cursor, batch, 0.0, rows)
        if dies:
            return None
        self.cursors[batch.epoch], self.rows = cursor, rows
        return batch.epoch, taken.through


class World:
    def __init__(self, device):
        self.device = device
        self.controller = Controller()
        self.wire, self.acks = [], []
        self.appended = Counter()
        self.at = 0.0

    def play(self, steps):
        for action, number in steps:
            getattr(self, action)(number)
            totals = self.device.outbox.totals()
            assert totals.held_bytes <= self.device.max_bytes, "EL-INV-8"

    def append(self, body):
        kind = body.kind
        try:
            self.device.outbox.append([body.model_dump_json().encode()])
        except OutboxUnavailableError:
            return
        self.appended[kind] += 1

    def window(self, number):
        """Its examples are all of one label, that no other window has."""
        labels = [0] * (STEPS_MAX * 4)
        labels[self.appended["window"]] = 1
        self.at += 60.0 * (1 + number % 4)
        sketches = (
            Sketches(count=1, features=("A" * 300,), confidence="A") if number % 5 == 0 else None
        )
        self.append(
            WindowSummary(
                slot=("main", "door")[number % 2],
                version=VERSION,
                started_at=self.at,
                ended_at=self.at + 60.0,
                count=1,
                latency_p50_us=1.0,
                latency_p95_us=2.0,
                predictions=labels,
                sketches=sketches,
            )
        )

    def windows(self, number):
        for _ in range(3):
            self.window(number)

    def sample(self, number):
        self.append(
            Sample(
                slot="main",
                version=VERSION,
                taken_at=self.at,
                reference=f"r{self.appended['sample']}",
                features=(0.5,) * (10 * number),
                prediction=0,
                confidence=1.0,
            )
        )

    def event(self, number):
        name = f"e{self.appended['event']}"
        self.append(DeviceEvent(at=self.at, name=name, detail="x" * number))

    def days(self, number):
        self.at += 40_000.0 * number

    def torn(self, number):
        """An append in whose midst the disk fails."""
        self.device.outbox.fails = True
        self.window(number)
        self.device.outbox.fails = False

    def kill(self, _number):
        self.device.kill()

    def send(self, number):
        """A part of the batch, as when the whole would not fit a message."""
        batch = self.device.outbox.next_batch()
        if batch is not None:
            count = max(1, len(batch.documents) - number // 4)
            documents = batch.documents[:count]
            self.wire.append(
                encode_telemetry(batch.epoch, batch.base, documents, None, batch.reduced)
            )

    def deliver(self, number):
        """Whatever was ever sent, also late and again."""
        if self.wire:
            self.acks.append(self.controller.take(self.wire[-1 - number % len(self.wire)]))

    def controller_dies(self, number):
        if self.wire:
            self.controller.take(self.wire[-1 - number % len(self.wire)], dies=True)

    def ack(self, number):
        if self.acks:
            self.device.outbox.acknowledge(*self.acks[-1 - number % len(self.acks)])

    def drain(self):
        for _ in range(10 * STEPS_MAX):
            if self.device.outbox.next_batch() is None:
                return
            self.send(0)
            self.device.outbox.acknowledge(*self.controller.take(self.wire[-1]))
        raise AssertionError("it never empties")

    def check(self):
        """Where the bound leaves no room to merge, what was sent may be dropped before it is known
        to have arrived: counted as dropped by the device, and not lost to the controller."""
        rows, outbox = self.controller.rows, self.device.outbox
        is_exact = self.device.max_bytes >= LIMITS.aggregates_from_bytes
        totals = outbox.totals()
        labels = [sum(column) for column in zip(*map(predictions, rows.windows), strict=True)]
        assert max(labels, default=0) <= 1, "an example came twice"
        assert sum(row["count"] for row in rows.windows) == sum(labels)
        samples, events = totals.samples_dropped, totals.events_dropped
        for name, stored, dropped in (
            (
                "window",
                [n for n, times in enumerate(labels) if times],
                totals.dropped - samples - events,
            ),
            ("sample", [row["reference"] for row in rows.samples], samples),
            ("event", [row["kind"] for row in rows.events], events),
        ):
            assert len(stored) == len(set(stored)), f"a {name} came twice"
            missing = self.appended[name] - len(stored)
            assert missing == dropped if is_exact else missing <= dropped, f"{name}s"
        counts = outbox.counts(1000)
        assert sum(c.appended for c in counts) == self.appended.total()
        for count in counts:
            cursor = self.controller.cursors.get(count.epoch)
            if cursor is not None and cursor.through == count.appended:
                self.check_cursor(cursor, count, is_exact)

    def check_cursor(self, cursor, count, is_exact):
        """Of a boot whose last record came."""
        numbers = [
            row["sequence"]
            for row in (
                *self.controller.rows.windows,
                *self.controller.rows.samples,
                *self.controller.rows.events,
            )
            if row["epoch"] == count.epoch
        ]
        assert len(numbers) == len(set(numbers))
        assert len(numbers) + cursor.lost + cursor.merged == count.appended
        if is_exact:
            assert (cursor.lost, cursor.merged) == (count.dropped, count.merged)
            assert cursor.samples_dropped == count.samples_dropped
            assert cursor.events_dropped == count.events_dropped
            assert cursor.sketches_shed == count.sketches_shed


def predictions(row):
    return WindowSummary.model_validate_json(row["body"]).predictions


ACTIONS = (
    *("windows", "window", "windows", "sample", "event", "days"),
    *("send", "send", "deliver", "deliver", "controller_dies", "ack", "kill", "torn"),
)
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7)), max_size=STEPS_MAX)
cases = st.tuples(st.sampled_from(BOUNDS), steps)


def hold(case, make_device=RealDevice):
    max_bytes, played = case
    world = World(make_device(max_bytes))
    world.device.max_bytes = max_bytes
    world.play(played)
    world.drain()
    world.check()


@pytest.mark.parametrize("make_device", [RealDevice, TwinDevice])
def test_every_count_arrives_once_or_is_counted_as_dropped(make_device):
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def holds(case):
        if make_device is TwinDevice:
            case = (case[0], [step for step in case[1] if step[0] != "torn"])
        hold(case, make_device)

    holds()


SHELL, CORE = "edgeloop_agent.shell.", "edgeloop_agent.core."
BUGS = {
    "what may have been sent is merged": Edit(
        SHELL + "outbox_reducer:OutboxReducer._sealed_end",
        "return last.boot, last.sequence + 1",
        "return FIRST",
    ),
    "after a boot nothing counts as sent": Edit(
        SHELL + "outbox_reducer:OutboxReducer._sealed_end",
        "return last.boot, last.sequence + 1",
        "is_fresh = store._next == 1 and store.epoch[-1] > '1'\n"
        "    return FIRST if is_fresh else (last.boot, last.sequence + 1)",
    ),
    "all but the last of a batch counts as sent": Edit(
        CORE + "reduction:sealed_rows", "return place", "return max(1, place - 1)"
    ),
    "a dropped sample is not counted": Edit(
        CORE + "reduction:tally_dropped", "tally.samples_dropped += 1", "pass"
    ),
    "a merged window that is dropped counts as one": Edit(
        CORE + "reduction:tally_dropped",
        "tally.windows_dropped += row.windows",
        "tally.windows_dropped += 1",
    ),
    "a merged window does not say how many it is": Edit(
        CORE + "window_merge:merge", "windows=sum(w.windows for w in windows),", ""
    ),
    "what is merged is not added": Edit(
        CORE + "window_merge:merge", "count=sum(w.count for w in windows)", "count=last.count"
    ),
    "a batch goes on over numbers that are gone": Edit(
        SHELL + "outbox:SqliteOutbox.next_batch",
        "(epoch_id, sequence) != (first_epoch_id, base + len(documents))",
        "epoch_id != first_epoch_id",
    ),
    "what is left keeps its place at the front": Edit(
        SHELL + "outbox:SqliteOutbox.replace", "through - len(new) + 1", "min(old)"
    ),
    "the controller counts what is merged as lost": Edit(
        "edgeloop_controller.store.telemetry:_count_merged", "cursor.lost -= merged", "pass"
    ),
    "a repeated record is stored again": Edit(
        "edgeloop_controller.store.telemetry:take_batch",
        "record for record in batch.records if record.sequence > cursor.through",
        "record for record in batch.records if record.sequence >= cursor.through",
    ),
    "an acknowledgement forgets one more": Edit(
        SHELL + "outbox:SqliteOutbox.acknowledge",
        "upto = min(through, int(row[1]))",
        "upto = min(through + 1, int(row[1]))",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug):
    """The property bites."""
    with plant(Mutant(bug, (BUGS[bug],), 0)):
        find(cases, breaks, settings=HUNT)


HUNT = settings(
    max_examples=3000,
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def breaks(case):
    try:
        hold(case)
    except AssertionError:
        return True
    return False
