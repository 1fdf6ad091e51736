"""What a live run is made of, as values: shares, classes, faults, descriptors, misbehaviour."""

import resource

import pytest
from typer.testing import CliRunner

from edgeloop_protocol.messages import VersionRef
from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.cli import app
from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.live.descriptors import SPARE, need_descriptors
from edgeloop_simulators.live.fleet import DIRECT, DeviceClass, FleetTerms, Share
from edgeloop_simulators.live.proxy import Link
from edgeloop_simulators.live.runners import Misbehaviour
from edgeloop_simulators.live.script import Act, check_acts, parse_act

BROKER = BrokerAddress("127.0.0.1", 1)


def terms(devices: int, share: Share, *classes: DeviceClass) -> FleetTerms:
    return FleetTerms("http://127.0.0.1:1", BROKER, devices, share, classes=classes)


@pytest.mark.parametrize("parts", [1, 3, 4, 7])
def test_the_shares_of_all_processes_are_the_fleet_and_meet_nowhere(parts: int) -> None:
    whole = terms(1000, Share()).ids()
    shares = [terms(1000, Share(part, parts)).ids() for part in range(1, parts + 1)]
    assert tuple(one for share in shares for one in share) == whole
    assert len(set(whole)) == 1000


@pytest.mark.parametrize(("part", "parts"), [(0, 2), (3, 2), (1, 0)])
def test_a_share_that_is_none_is_refused(part: int, parts: int) -> None:
    with pytest.raises(FleetError, match="goes from 1/N to N/N"):
        Share(part, parts)


def test_a_class_has_about_its_share_and_the_same_devices_in_every_process() -> None:
    mobile, far = DeviceClass("mobile", 0.2), DeviceClass("far", 0.1)
    fleet = terms(5000, Share(), mobile, far)
    names = [fleet.class_of(one) for one in fleet.ids()]
    assert 900 < names.count("mobile") < 1100
    assert 400 < names.count("far") < 600
    assert set(names) == {"mobile", "far", DIRECT}
    half = terms(5000, Share(2, 2), mobile, far)
    assert [half.class_of(one) for one in half.ids()] == names[2500:]


def test_faults_are_read_as_they_are_written() -> None:
    assert parse_act("partition:mobile@20+30") == Act("partition", "mobile", 20.0, 30.0)
    assert parse_act("latency=0.5:far@1.5") == Act("latency", "far", 1.5, None, 0.5)
    assert parse_act("kill:broker@60+5") == Act("kill", "broker", 60.0, 5.0)


def test_a_fault_changes_its_link_alone() -> None:
    slow = Link(latency_s=0.1, bandwidth_bytes_per_s=1000.0)
    assert parse_act("partition:a@1").on(slow) == Link(0.1, 1000.0, partitioned=True)
    assert parse_act("latency=2:a@1").on(slow) == Link(2.0, 1000.0)
    assert parse_act("bandwidth=50:a@1").on(slow) == Link(0.1, 50.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "write KIND"),
        ("melt:mobile@1", "the kinds are"),
        ("latency:mobile@1", "needs an amount"),
        ("partition=3:mobile@1", "takes no amount"),
        ("stall:mobile@1.2.3", "1.2.3"),
    ],
)
def test_a_fault_that_cannot_be_read_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        parse_act(text)


@pytest.mark.parametrize(
    ("text", "is_local", "says"),
    [
        ("stall:nobody@1", True, "no such device class"),
        ("kill:mobile@1", True, "only broker and controller"),
        ("kill:broker@1", False, "does not own it"),
    ],
)
def test_a_fault_needs_its_target(text: str, is_local: bool, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        check_acts((parse_act(text),), (DeviceClass("mobile", 0.5),), is_local)


def test_misbehaviour_strikes_its_share_of_the_devices_and_always_the_same() -> None:
    version = VersionRef(name="demo", version="3", manifest_digest="0" * 64)
    crash = Misbehaviour("crash", "demo@3", 0.25)
    struck = [n for n in range(2000) if crash.strikes(f"d{n}", version)]
    assert 400 < len(struck) < 600
    assert struck == [n for n in range(2000) if crash.strikes(f"d{n}", version)]
    other = version.model_copy(update={"version": "4"})
    assert not any(crash.strikes(f"d{n}", other) for n in range(100))
    assert all(Misbehaviour("nan", "*").strikes(f"d{n}", other) for n in range(100))


def test_more_connections_than_descriptors_are_refused_with_what_to_do() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    with pytest.raises(FleetError, match=r"file descriptors.*--share 1/2"):
        need_descriptors(before[1] - SPARE + 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_the_soft_limit_is_raised_as_far_as_needed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        need_descriptors(1500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1500 + SPARE, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--share", "2"], "write K/N"),
        (["--share", "3/2"], "goes from 1/N"),
        (["--broker", "here"], "HOST:PORT"),
        (["--class", "mobile"], "NAME=VALUE"),
        (["--class", "mobile=0.5,colour=1"], "colour is no setting"),
        (["--class", "a=0.7", "--class", "b=0.7"], "more than 1"),
        (["--misbehave", "sulk:demo@1"], "the kinds are"),
        (["--misbehave", "crash:demo@1:lots"], "not a number"),
        (["--fault", "stall:mobile@1"], "no such device class"),
        (["--label", "x"], "NAME=VALUE"),
        (["--examples", "/no/such.npy"], "no such file"),
        (["--join", "http://127.0.0.1:1", "--real-agents", "1"], "--examples"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_starts_anything(
    arguments: list[str], says: str
) -> None:
    result = CliRunner().invoke(app, ["fleet", *arguments])
    assert result.exit_code == 2
    assert says in result.output
