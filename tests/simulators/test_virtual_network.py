"""What the faults of the simulated network do to those who talk over it.

What it does without faults, and how its brokers differ, stands in tests/contracts.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.broker import SILENCE_S
from edgeloop_simulators.virtual.network.broker_profiles import IDEAL, MOSQUITTO, BrokerProfile
from edgeloop_simulators.virtual.network.client import VirtualClient
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.faults import OF_THE_NETWORK, Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import Link

UP = "edgeloop/v1/d1/up/telemetry"
DOWN = "edgeloop/v1/d1/down/desired"
PRESENCE = "edgeloop/v1/d1/up/presence"


class Listener:
    def __init__(self) -> None:
        self.connections = 0
        self.reasons: list[str] = []
        self.heard: list[tuple[str, bytes]] = []

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, payload))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.heard]


class Bench:
    """A network with a controller and the devices d1 and d2, connected."""

    def __init__(self, profile: BrokerProfile = IDEAL, seed: int = 1) -> None:
        self.loop = EventLoop()
        self.seen: list[Seen] = []
        self.network = Network(self.loop, Streams(seed), self.seen.append, profile)
        self.controller, self.heard = self.client("controller", "edgeloop/v1/+/up/+")
        self.device, self.own = self.device_client("d1")
        self.other, self.others = self.device_client("d2")
        self.run(1.0)

    def client(
        self, name: str, *filters: str, will: tuple[str, bytes] | None = None, site: str = ""
    ) -> tuple[VirtualClient, Listener]:
        listener = Listener()
        place = Place(name, site, "" if name == "controller" else "tiny", Link())
        made = self.network.client(name, filters, will, place)
        made.start(listener)
        return made, listener

    def device_client(self, name: str) -> tuple[VirtualClient, Listener]:
        will = (f"edgeloop/v1/{name}/up/presence", b"gone")
        return self.client(name, f"edgeloop/v1/{name}/down/+", will=will, site="north")

    def run(self, seconds: float) -> None:
        until_s = self.loop.now_s + seconds
        while self.loop.step(until_s):
            pass

    def fault(self, kind: str, target: str = "d1", **terms: float) -> Fault:
        made = Fault(kind=FaultKind(kind), at_s=self.loop.now_s, target=target, **terms)
        self.network.begin(made)
        return made

    def count(self, what: str) -> int:
        return sum(seen.what == what for seen in self.seen)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_a_message_costs_one_event_a_hop_and_an_idle_client_none(bench: Bench) -> None:
    bench.run(3600.0)
    before = bench.loop.events_run
    bench.run(3600.0)
    assert bench.loop.events_run == before
    assert bench.device.publish(UP, b"x")
    bench.run(1.0)
    assert bench.loop.events_run == before + 2
    assert bench.network.bytes_up["d1"] == len(UP) + 1
    assert bench.network.bytes_down["controller"] == len(UP) + 1


def test_large_messages_wait_for_bandwidth_and_small_ones_behind_them(bench: Bench) -> None:
    for _ in range(10):
        assert bench.device.publish(UP, b"x" * 100_000)  # a second at 1 MB/s, twice
    assert bench.device.publish(UP, b"last")
    bench.run(0.9)
    assert len(bench.heard.heard) < 9
    bench.run(1.5)
    assert bench.heard.payloads[-1] == b"last"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_dropped_messages_are_lost_and_their_sender_does_not_learn(
    bench: Bench, direction: str
) -> None:
    fault = bench.fault("drop", amount=0.5)
    sender, topic, heard = (
        (bench.device, UP, bench.heard)
        if direction == "up"
        else (bench.controller, DOWN, bench.own)
    )
    for payload in _numbers(200):
        assert sender.publish(topic, payload)
    assert bench.other.publish("edgeloop/v1/d2/up/telemetry", b"not hit")
    bench.run(5.0)
    arrived = [payload for payload in heard.payloads if payload != b"not hit"]
    assert 60 < len(arrived) < 140
    assert arrived == sorted(arrived, key=int)
    assert bench.count("message.dropped") == 200 - len(arrived)
    assert sender.outgoing == 0
    bench.network.end(fault)
    assert sender.publish(topic, b"after")
    bench.run(5.0)
    assert heard.payloads[-1] == b"after"


def test_duplicates_arrive_in_order_and_reordered_ones_do_not(bench: Bench) -> None:
    fault = bench.fault("duplicate", amount=0.5)
    for payload in _numbers(100):
        assert bench.device.publish(UP, payload)
    bench.run(5.0)
    times = Counter(bench.heard.payloads)
    assert set(times.values()) == {1, 2}
    assert bench.heard.payloads == sorted(bench.heard.payloads, key=int)
    bench.network.end(fault)
    bench.heard.heard.clear()

    bench.fault("reorder", target="class:tiny", amount=0.3)
    for payload in _numbers(100):
        assert bench.device.publish(UP, payload)
    bench.run(35.0)
    assert sorted(bench.heard.payloads, key=int) == _numbers(100) != bench.heard.payloads


def test_a_delay_keeps_the_order(bench: Bench) -> None:
    bench.fault("delay", target="site:north", amount=30.0)
    for payload in _numbers(20):
        assert bench.device.publish(UP, payload)
    bench.run(1.0)
    assert len(bench.heard.heard) < 20
    bench.run(31.0)
    assert bench.heard.payloads == _numbers(20)


def test_a_short_partition_only_delays(bench: Bench) -> None:
    fault = bench.fault("partition", duration_s=20.0)
    assert not bench.network.reaches(Place("d1", "north"))
    assert bench.device.publish(UP, b"one")
    assert bench.device.publish(UP, b"two")
    assert bench.controller.publish(DOWN, b"three")
    bench.run(20.0)
    assert (bench.heard.heard, bench.own.heard) == ([], [])
    bench.network.end(fault)
    assert bench.network.reaches(Place("d1", "north"))
    assert bench.device.publish(UP, b"not before them")
    bench.run(2.0)
    assert bench.heard.payloads == [b"one", b"two", b"not before them"]
    assert bench.own.payloads == [b"three"]
    assert bench.own.connections == 1


def test_in_a_long_partition_the_keepalive_fails_on_both_sides(bench: Bench) -> None:
    """What was sent and not acknowledged is sent again after it, and the will was delivered."""
    fault = bench.fault("partition")
    assert bench.device.publish(UP, b"unheard")
    assert bench.controller.publish(DOWN, b"lost")
    bench.run(SILENCE_S - 1)
    assert bench.device.publish(UP, b"unheard too")
    bench.run(2.0)
    assert bench.own.reasons == ["keepalive timeout"]
    assert bench.heard.heard == [(PRESENCE, b"gone")]
    assert not bench.device.publish(UP, b"refused")
    bench.run(100.0)
    assert len(bench.own.reasons) > 2  # tries that time out
    bench.network.end(fault)
    bench.run(80.0)
    assert bench.own.connections == 2
    assert bench.heard.payloads[1:] == [b"unheard", b"unheard too"]
    assert bench.own.heard == []


def test_a_partition_up_loses_what_a_device_says_alone(bench: Bench) -> None:
    bench.fault("partition_up")
    assert bench.device.publish(UP, b"unheard")
    assert bench.controller.publish(DOWN, b"heard")
    bench.run(10.0)
    assert bench.own.payloads == [b"heard"]
    assert bench.heard.heard == []


def test_a_partition_down_makes_duplicates_of_what_was_not_acknowledged(bench: Bench) -> None:
    fault = bench.fault("partition_down")
    assert bench.device.publish(UP, b"said")
    assert bench.controller.publish(DOWN, b"unheard")
    bench.run(SILENCE_S + 1)
    assert bench.own.reasons
    bench.network.end(fault)
    bench.run(80.0)
    assert bench.heard.payloads == [b"said", b"gone", b"said"]
    assert bench.own.heard == []


def test_a_place_that_appears_in_a_partition_is_cut_off_too(bench: Bench) -> None:
    fault = bench.fault("partition", target="site:north")
    _, late = bench.device_client("d3")
    bench.run(60.0)
    assert late.connections == 0
    bench.network.end(fault)
    bench.run(80.0)
    assert late.connections == 1


@pytest.mark.parametrize("kind", ["broker_restart", "broker_wipe"])
def test_a_restart_ends_all_connections_and_they_come_back(bench: Bench, kind: str) -> None:
    bench.network.broker.publish(DOWN, b"kept", retain=True)
    bench.run(1.0)
    fault = bench.fault(kind, target="broker", duration_s=10.0)
    assert bench.device.publish(UP, b"just then")  # it has not noticed yet
    bench.run(10.0)
    assert not bench.device.publish(UP, b"refused")
    assert bench.own.reasons[0] == "the broker has ended"
    bench.network.end(fault)
    bench.run(80.0)
    assert [bench.own.connections, bench.heard.connections] == [2, 2]
    # The will of a connection that its broker ended is not delivered.
    assert b"gone" not in bench.heard.payloads
    assert bench.own.payloads == ([b"kept"] * 2 if kind == "broker_restart" else [b"kept"])


def test_retained_messages_can_be_lost(bench: Bench) -> None:
    bench.network.broker.publish(DOWN, b"kept", retain=True)
    bench.fault("retained_lost", target="broker")
    bench.device.crash(reset=True)
    _, again = bench.device_client("d1")
    bench.run(5.0)
    assert again.connections == 1
    assert again.heard == []


def test_an_impostor_takes_the_client_id_and_the_device_takes_it_back(bench: Bench) -> None:
    bench.fault("duplicate_client_id", amount=3.0, duration_s=60.0)
    bench.run(120.0)
    assert bench.own.reasons == ["session taken over"] * 3
    assert bench.own.connections == 4
    assert bench.device.publish(UP, b"mine")
    bench.run(1.0)
    assert bench.heard.payloads == [b"gone"] * 3 + [b"mine"]
    assert bench.others.connections == 1


def test_poison_reaches_both_ends_and_holds_nothing_up(bench: Bench) -> None:
    bench.fault("poison", amount=60.0, duration_s=60.0)
    bench.run(61.0)
    assert bench.own.heard
    assert bench.heard.heard
    assert bench.others.heard == []
    assert len({payload for _, payload in bench.own.heard + bench.heard.heard}) > 15
    assert bench.device.publish(UP, b"after")
    bench.run(1.0)
    assert bench.heard.payloads[-1] == b"after"


@pytest.mark.parametrize("limit_bytes", [PAYLOAD_MAX_BYTES * 2, PAYLOAD_MAX_BYTES])
def test_oversize_messages_pass_where_the_broker_lets_them(limit_bytes: int) -> None:
    bench = Bench(replace(IDEAL, payload_max_bytes=limit_bytes))
    bench.fault("oversize", amount=20.0)
    bench.run(10.0)
    arrived = bench.own.payloads + bench.heard.payloads
    assert len(arrived) == (20 if limit_bytes > PAYLOAD_MAX_BYTES else 0)
    assert all(len(payload) > PAYLOAD_MAX_BYTES for payload in arrived)
    assert bench.own.reasons == bench.heard.reasons == []


def test_a_killed_process_has_its_will_delivered_at_once(bench: Bench) -> None:
    assert bench.device.publish(UP, b"last words")
    bench.device.crash(reset=True)
    bench.run(1.0)
    assert bench.heard.heard == [(UP, b"last words"), (PRESENCE, b"gone")]
    assert bench.own.reasons == []


def test_a_power_cut_is_noticed_by_silence(bench: Bench) -> None:
    bench.device.crash()
    bench.run(SILENCE_S - 1)
    assert bench.heard.heard == []
    bench.run(2.0)
    assert bench.heard.heard == [(PRESENCE, b"gone")]


def test_a_device_that_boots_again_at_once_replaces_its_dead_session(bench: Bench) -> None:
    bench.device.crash()
    _, again = bench.device_client("d1")
    bench.run(1.0)
    assert again.connections == 1
    assert bench.heard.heard == [(PRESENCE, b"gone")]
    assert bench.controller.publish(DOWN, b"for the new")
    bench.run(SILENCE_S + 1)
    assert again.payloads == [b"for the new"]
    assert len(bench.heard.heard) == 1  # the old session's end is not the new one's


@pytest.mark.parametrize("way", ["stop", "reset"])
def test_an_end_that_a_partition_swallows_is_noticed_by_silence(bench: Bench, way: str) -> None:
    fault = bench.fault("partition_up")
    if way == "stop":
        bench.device.stop()
    else:
        bench.device.crash(reset=True)
    bench.run(SILENCE_S - 1)
    assert bench.heard.heard == []
    bench.run(2.0)
    assert bench.heard.heard == [(PRESENCE, b"gone")]
    bench.network.end(fault)
    bench.run(10.0)
    assert len(bench.heard.heard) == 1


def test_a_client_that_dies_while_it_connects_leaves_no_session(bench: Bench) -> None:
    dying, _ = bench.device_client("d3")
    dying.crash()
    bench.run(SILENCE_S + 1)
    assert set(bench.network.broker.sessions) == {"controller", "d1", "d2"}
    assert bench.heard.heard == []


def test_one_of_two_subscribers_to_a_filter_goes_and_the_other_still_hears(bench: Bench) -> None:
    _, witness = bench.client("witness", "edgeloop/v1/d1/down/+")
    bench.run(1.0)
    bench.device.stop()
    bench.run(1.0)
    assert bench.controller.publish(DOWN, b"x")
    bench.run(1.0)
    assert witness.payloads == [b"x"]
    assert bench.own.heard == []


def test_what_arrives_after_the_connection_was_lost_is_sent_again(bench: Bench) -> None:
    """Its acknowledgement had nowhere to go."""
    assert bench.device.publish(UP, b"on its way")
    bench.device.radio(False)
    bench.run(1.0)
    assert bench.heard.payloads == [b"on its way"]
    assert bench.network.queue_sizes() == {"from d1": 1}
    bench.device.radio(True)
    bench.run(70.0)
    assert bench.heard.payloads == [b"on its way", b"gone", b"on its way"]


def test_radios_that_come_back_after_hours_spread_over_the_longest_wait(bench: Bench) -> None:
    devices = [bench.device_client(f"r{number}") for number in range(30)]
    bench.run(1.0)
    for device, _ in devices:
        device.radio(False)
    bench.run(3600.0)
    for device, _ in devices:
        device.radio(True)
    bench.run(17.0)
    assert 2 <= sum(own.connections == 2 for _, own in devices) <= 20
    bench.run(45.0)
    assert all(own.connections == 2 for _, own in devices)


def test_a_radio_that_is_off_loses_the_connection_and_costs_nothing(bench: Bench) -> None:
    bench.device.radio(False)
    assert bench.own.reasons == ["the radio is off"]
    assert not bench.device.publish(UP, b"no")
    assert not bench.network.reaches(Place("d1", "north"))
    bench.run(SILENCE_S + 1)
    assert bench.heard.heard == [(PRESENCE, b"gone")]
    before = bench.loop.events_run
    bench.run(12 * 3600.0)
    assert bench.loop.events_run == before
    bench.device.radio(True)
    bench.run(61.0)
    assert bench.own.connections == 2
    assert bench.device.publish(UP, b"yes")
    bench.run(1.0)
    assert bench.heard.payloads[-1] == b"yes"


def test_a_client_takes_no_more_than_its_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop_simulators.virtual.network.client.OUTGOING_MAX", 20)
    bench.fault("partition")
    taken = [bench.device.publish(UP, b"x") for _ in range(25)]
    assert taken.count(True) == 20
    assert not taken[-1]
    assert bench.network.queue_sizes() == {"from d1": 20}


def test_a_subscriber_that_takes_nothing_does_not_fill_the_broker() -> None:
    bench = Bench(MOSQUITTO)
    bench.fault("partition_down", target="controller")
    for _ in range(MOSQUITTO.queue_max):
        bench.network.broker.publish(UP, b"x")
    bench.run(10.0)
    for _ in range(MOSQUITTO.queue_max):
        bench.network.broker.publish(UP, b"x")
    assert bench.network.queue_sizes() == {"to controller": MOSQUITTO.queue_max}
    assert bench.heard.heard == []


def test_the_queue_limit_of_a_profile_drops_and_tells() -> None:
    bench = Bench(MOSQUITTO)
    for _ in range(MOSQUITTO.queue_max + 100):
        bench.network.broker.publish(UP, b"x")
    assert bench.network.queue_sizes() == {"to controller": MOSQUITTO.queue_max}
    bench.run(5.0)
    assert len(bench.heard.heard) == MOSQUITTO.queue_max
    assert bench.count("message.dropped") == 100
    assert bench.network.queue_sizes() == {}


def _told(faults: list[tuple[str, str]], seed: int = 1) -> Bench:
    """All talk to each other for a minute."""
    bench = Bench(seed=seed)
    for kind, target in faults:
        bench.fault(kind, target, amount=0.5, duration_s=30.0)
    for number in range(60):
        bench.device.publish(UP, b"%d" % number)
        bench.other.publish("edgeloop/v1/d2/up/telemetry", b"%d" % number)
        bench.controller.publish(DOWN, b"%d" % number)
        bench.controller.publish("edgeloop/v1/d2/down/desired", b"%d" % number)
        bench.run(1.0)
    return bench


def test_the_same_seed_is_the_same_world_and_another_is_not() -> None:
    faults = [("drop", "*"), ("reorder", "d1"), ("poison", "d1"), ("partition", "d2")]
    first = _told(faults).seen
    assert len(first) > 100
    assert first == _told(faults).seen
    assert first != _told(faults, seed=2).seen


@pytest.mark.parametrize("kind", ["drop", "duplicate", "partition", "duplicate_client_id"])
def test_a_fault_of_one_device_does_not_shift_the_luck_of_another(kind: str) -> None:
    def of_the_other(bench: Bench) -> list[bytes]:
        said = [payload for topic, payload in bench.heard.heard if "/d2/" in topic]
        return bench.others.payloads + said

    alone = of_the_other(_told([("drop", "site:north")]))
    assert 0 < len(alone) < 120
    assert alone == of_the_other(_told([(kind, "d1"), ("drop", "site:north")]))


def test_the_network_performs_what_it_says(bench: Bench) -> None:
    for kind in sorted(OF_THE_NETWORK):
        fault = bench.fault(kind, target="*", amount=1.0, duration_s=5.0)
        bench.run(5.0)
        bench.network.end(fault)
    bench.run(200.0)
    clients: list[Callable[[str, bytes], bool]] = [
        bench.controller.publish,
        bench.device.publish,
        bench.other.publish,
    ]
    assert all(publish(UP, b"x") for publish in clients)
