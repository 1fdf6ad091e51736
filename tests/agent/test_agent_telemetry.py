"""The outbox's drain, the byte budget, and what is withheld when it is used up."""

import pytest

from edgeloop_agent.core.budget import DAY_S, ByteBudget
from edgeloop_agent.core.drain import ACK_TIMEOUT_S_MAX, Drain
from edgeloop_agent.shell.inbox import DownlinkMessage, Inbox
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.limits import ACK_TIMEOUT_S, EVENT_QUEUE_MAX, PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    Ack,
    DeviceEvent,
    Sample,
    Sketches,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode_telemetry,
)
from edgeloop_simulators.twins.clock import SimulatedClock
from edgeloop_simulators.twins.outbox import MemoryOutbox

VERSION = VersionRef(name="m", version="1", manifest_digest="1" * 64)
EPOCH = "0" * 16


def window(sketches=True):
    return WindowSummary(
        slot="main",
        version=VERSION,
        started_at=0,
        ended_at=1,
        count=1,
        latency_p50_us=1,
        latency_p95_us=1,
        sketches=Sketches(count=1, features=("x" * 100,), confidence="y") if sketches else None,
    )


def sample(features=3):
    return Sample(
        slot="main",
        version=VERSION,
        taken_at=0,
        reference="r",
        features=(0.5,) * features,
        prediction=0,
        confidence=1,
    )


class Wire:
    """Takes what is published, or refuses it."""

    def __init__(self):
        self.sent = []
        self.takes = True

    def __call__(self, payload):
        assert len(payload) <= PAYLOAD_MAX_BYTES
        if self.takes:
            self.sent.append(decode(TelemetryBatch, payload))
        return self.takes


@pytest.fixture
def clock():
    return SimulatedClock()


def make(clock, budget_bytes=10**6):
    outbox = MemoryOutbox(EPOCH, 10**6)
    return Telemetry(outbox, ByteBudget(budget_bytes, None, 0.0), clock)


def held(telemetry):
    """What is in the outbox, decoded."""
    batch = telemetry.outbox.next_batch()
    payload = encode_telemetry(batch.epoch, batch.base, batch.documents)
    return decode(TelemetryBatch, payload).records


def test_one_batch_in_flight_until_it_is_acknowledged(clock):
    telemetry, wire = make(clock), Wire()
    telemetry.event("before")
    telemetry.pump(wire)
    assert not wire.sent, "not connected"
    telemetry.drain.connected(clock.monotonic())
    telemetry.pump(wire)
    telemetry.event("after")
    telemetry.pump(wire)
    assert [len(batch.records) for batch in wire.sent] == [1]
    telemetry.acknowledged(Ack(epoch="f" * 16, through=1))
    telemetry.pump(wire)
    assert len(wire.sent) == 1, "an acknowledgement of something else ends no flight"
    telemetry.acknowledged(Ack(epoch=EPOCH, through=1))
    telemetry.pump(wire)
    assert [record.body.name for record in wire.sent[-1].records] == ["after"]
    telemetry.acknowledged(Ack(epoch=EPOCH, through=2))
    telemetry.pump(wire)
    assert len(wire.sent) == 2
    assert telemetry.drain.next_deadline() is None


def test_without_an_acknowledgement_it_is_sent_again_ever_later(clock):
    telemetry, wire = make(clock), Wire()
    telemetry.drain.connected(0.0)
    telemetry.event("x")
    waits = []
    for _ in range(8):
        telemetry.pump(wire)
        waits.append(telemetry.drain.next_deadline() - clock.monotonic())
        clock.advance(waits[-1])
    assert len(wire.sent) == 8
    assert waits[0] == ACK_TIMEOUT_S
    assert waits == sorted(waits)
    assert waits[-1] == ACK_TIMEOUT_S_MAX


def test_a_reconnect_sends_what_was_in_flight_at_once(clock):
    telemetry, wire = make(clock), Wire()
    telemetry.drain.connected(0.0)
    telemetry.event("x")
    telemetry.pump(wire)
    telemetry.drain.disconnected()
    clock.advance(1000)
    telemetry.pump(wire)
    assert len(wire.sent) == 1
    telemetry.drain.connected(clock.monotonic())
    telemetry.pump(wire)
    assert len(wire.sent) == 2


def test_a_batch_that_the_client_refuses_is_offered_again(clock):
    telemetry, wire = make(clock), Wire()
    telemetry.drain.connected(0.0)
    telemetry.event("x")
    wire.takes = False
    telemetry.pump(wire)
    wire.takes = True
    telemetry.pump(wire)
    assert not wire.sent
    clock.advance(1)
    telemetry.pump(wire)
    assert len(wire.sent) == 1


def test_beyond_the_budget_samples_and_sketches_are_withheld_and_windows_go_on(clock):
    telemetry = make(clock, budget_bytes=len(window().model_dump_json()) + 5)
    telemetry.record(window())
    telemetry.record(window())
    telemetry.record(sample())
    telemetry.event("x")
    bodies = [record.body for record in held(telemetry)]
    assert [body.kind for body in bodies] == ["window", "window", "event"]
    assert [body.sketches is not None for body in bodies[:2]] == [True, False]
    assert (telemetry.samples_withheld, telemetry.sketches_withheld) == (1, 1)
    clock.advance(DAY_S)
    telemetry.record(sample())
    assert len(held(telemetry)) == 4


def test_a_restart_does_not_refill_the_budget():
    budget = ByteBudget(1000, 10.0, 0.0)
    assert not budget.can_pay(11, 0.0)
    assert budget.can_pay(11, DAY_S / 900)
    budget.spend(5000, DAY_S)
    assert budget.left_bytes(DAY_S) == 0
    assert budget.left_bytes(DAY_S * 5) == 1000


def test_a_record_too_large_costs_only_itself(clock):
    telemetry = make(clock)
    telemetry.record(sample(1).model_copy(update={"features": (0.123456789,) * 20_000}))
    telemetry.event("x")
    assert telemetry.too_large == 1
    assert len(held(telemetry)) == 1


def test_large_records_still_travel_in_batches_that_fit(clock):
    telemetry, wire = make(clock, 10**8), Wire()
    telemetry.outbox = MemoryOutbox(EPOCH, 10**8)
    telemetry.drain.connected(0.0)
    for _ in range(60):
        telemetry.record(sample(1000))
    while telemetry.outbox.next_batch():
        telemetry.pump(wire)
        telemetry.acknowledged(Ack(epoch=EPOCH, through=wire.sent[-1].records[-1].sequence))
    got = [record.sequence for batch in wire.sent for record in batch.records]
    assert got == list(range(1, 61))


def test_a_drain_that_was_never_connected_is_never_due():
    drain = Drain()
    drain.filled(0.0)
    assert not drain.is_due(10**9)


def test_a_full_inbox_drops_messages_and_nothing_else():
    inbox = Inbox()
    for _ in range(EVENT_QUEUE_MAX + 3):
        inbox.message("t", b"x")
    assert inbox.messages_dropped == 3
    taken = inbox.take(0.0)
    assert taken == [DownlinkMessage("t", b"x")] * EVENT_QUEUE_MAX
    assert inbox.take(0.0) == []
    inbox.connected()
    inbox.post(DeviceEvent(at=0, name="x"))
    assert len(inbox.take(0.1)) == 2
