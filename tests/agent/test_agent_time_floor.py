"""The clock at 1970, thirty years ahead, jumping."""

import pytest

from edgeloop_agent.core.events import Tick
from edgeloop_agent.ports import RunnerSaid
from edgeloop_agent.shell.corrected_times import correcting
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.time_floor import (
    EARLIEST_S,
    FILE_NAME,
    KEEP_EVERY_S,
    LATEST_S,
    FlooredClock,
    read_floor,
)
from edgeloop_protocol.messages import DeviceEvent, Sample, VersionRef, WindowSummary
from edgeloop_simulators.twins.clock import SimulatedClock

NOW = EARLIEST_S + 100 * 86_400
YEARS_30_S = 30 * 365 * 86_400


@pytest.fixture
def system():
    return SimulatedClock(wall_s=NOW)


def test_a_good_clock_is_told_as_it_is(system, tmp_path):
    clock = FlooredClock(system, OsDisk(tmp_path))
    clock.heard(NOW - 60)
    assert clock.wall() == NOW
    system.advance(5)
    assert (clock.wall(), clock.monotonic()) == (NOW + 5, 5)


def test_a_device_that_wakes_in_1970_goes_on_from_the_floor(system, tmp_path):
    FlooredClock(system, OsDisk(tmp_path)).heard(NOW)
    woken = SimulatedClock(wall_s=0.0)
    clock = FlooredClock(woken, OsDisk(tmp_path))
    assert clock.wall() == pytest.approx(NOW, abs=1)
    woken.advance(60)
    assert clock.wall() == pytest.approx(NOW + 60, abs=1)
    woken.jump_wall(NOW + 500)  # NTP
    assert clock.wall() == NOW + 500


def test_thirty_years_ahead_is_not_believed_and_does_not_raise_the_floor(system, tmp_path):
    clock = FlooredClock(system, OsDisk(tmp_path))
    clock.heard(NOW)
    system.jump_wall(NOW + YEARS_30_S)
    assert clock.wall() == pytest.approx(NOW, abs=1)
    system.advance(KEEP_EVERY_S * 3)
    clock.wall()
    assert read_floor(tmp_path) == pytest.approx(NOW + KEEP_EVERY_S * 3, abs=1)
    system.jump_wall(NOW + KEEP_EVERY_S * 3 + 7)
    assert clock.wall() == NOW + KEEP_EVERY_S * 3 + 7


def test_the_floor_only_grows_and_only_to_what_can_be(system, tmp_path):
    clock = FlooredClock(system, OsDisk(tmp_path))
    for said in (NOW, NOW - 86_400, 0.0, LATEST_S + 1):
        clock.heard(said)
    assert clock.floor() == NOW


def test_what_has_passed_is_kept_at_most_once_an_hour(system, tmp_path):
    clock = FlooredClock(system, OsDisk(tmp_path))
    clock.heard(NOW)
    written = (tmp_path / FILE_NAME).stat().st_mtime_ns
    system.advance(KEEP_EVERY_S - 1)
    clock.wall()
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == written
    system.advance(1)
    clock.wall()
    assert read_floor(tmp_path) == NOW + KEEP_EVERY_S


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"floor": "x"}', '{"floor": true}', '{"floor": 1}', '{"floor": 1e300}', '"', "1"],
)
def test_a_damaged_floor_counts_for_nothing(system, tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    assert read_floor(tmp_path) is None
    assert FlooredClock(system, OsDisk(tmp_path)).floor() == EARLIEST_S


def test_a_disk_that_takes_nothing_keeps_nobody_from_the_time(system, tmp_path):
    class Full(OsDisk):
        def open(self, path, append=False):
            raise OSError(28, "No space left on device")

    clock = FlooredClock(system, Full(tmp_path))
    clock.heard(NOW)
    assert clock.floor() == NOW
    assert read_floor(tmp_path) is None


VERSION = VersionRef(name="m", version="1", manifest_digest="0" * 64)
WINDOW = WindowSummary(
    slot="main",
    version=VERSION,
    started_at=5.0,
    ended_at=15.0,
    count=1,
    latency_p50_us=1,
    latency_p95_us=1,
)
SAMPLE = Sample(
    slot="main",
    version=VERSION,
    taken_at=7.0,
    reference="r",
    features=(1.0,),
    prediction=0,
    confidence=1.0,
)


def test_what_a_runner_told_in_1970_is_moved_to_the_floor(system, tmp_path):
    clock = FlooredClock(system, OsDisk(tmp_path))
    clock.heard(NOW)
    posted = []
    post = correcting(posted.append, clock.correction_s)
    post(RunnerSaid("main", WINDOW))
    assert posted.pop().body is WINDOW, "a good clock changes nothing"
    system.jump_wall(15.0)
    for body in (WINDOW, SAMPLE, DeviceEvent(at=15.0, name="e")):
        post(RunnerSaid("main", body))
    post(Tick())
    window, sample, event, tick = posted
    assert (window.body.started_at, window.body.ended_at) == (NOW - 10, NOW)
    assert window.body.count == 1
    assert sample.body.taken_at == NOW - 8
    assert event.body.at == NOW
    assert tick == Tick()
