"""Virtual time: the heap of events, clocks that lie, duty cycles, and code that blocks in it."""

import pytest

from edgeloop_simulators.virtual.device.duty import HOUR_S, Duty
from edgeloop_simulators.virtual.kernel.clock import VirtualClock
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.streams import LightStream, Streams
from edgeloop_simulators.virtual.kernel.tasks import Task
from edgeloop_simulators.virtual.spec.world import DailyWindow


def run(loop, until_s):
    while loop.step(until_s):
        pass


def test_events_of_one_time_run_in_the_order_asked_for_and_cancelled_ones_never():
    loop, ran = EventLoop(), []
    loop.call_at(2.0, lambda: ran.append("late"))
    loop.call_at(1.0, lambda: ran.append("first"))
    cancelled = loop.call_at(1.0, lambda: ran.append("cancelled"))
    loop.call_at(1.0, lambda: ran.append("second"))
    cancelled.cancel()
    run(loop, 10.0)
    assert ran == ["first", "second", "late"]
    assert (loop.now_s, loop.events_run) == (10.0, 3)


def test_what_is_asked_for_in_the_past_runs_now():
    loop = EventLoop()
    run(loop, 5.0)
    at = []
    loop.call_at(1.0, lambda: at.append(loop.now_s))
    run(loop, 5.0)
    assert at == [5.0]


def test_a_wrong_clock_goes_on_from_what_it_shows_and_durations_do_not_notice():
    loop = EventLoop()
    clock = VirtualClock(loop, 1000.0)
    run(loop, 10.0)
    clock.set_wrong(0.0)
    run(loop, 15.0)
    assert (clock.wall(), clock.monotonic()) == (5.0, 15.0)
    clock.set_right()
    assert clock.wall() == 1015.0


@pytest.mark.parametrize(
    ("window", "on_at_h"),
    [
        (DailyWindow(8, 17), [8, 9, 10, 11, 12, 13, 14, 15, 16]),
        (DailyWindow(22, 3), [0, 1, 2, 22, 23]),
    ],
)
def test_a_duty_cycle_by_the_devices_own_hours(window, on_at_h):
    loop, switched = EventLoop(), []
    duty = Duty(loop, (window,), local_h_at_start=5.0, switch=switched.append)
    on = [hour for hour in range(24) if duty.is_on(((hour - 5) % 24 + 0.5) * HOUR_S)]
    assert on == on_at_h
    duty.begin()
    run(loop, 48 * HOUR_S)
    assert switched[1:] == [not switched[0], switched[0]] * 2


def test_no_window_is_always_on_and_costs_no_event():
    loop, switched = EventLoop(), []
    Duty(loop, (), 0.0, switched.append).begin()
    run(loop, 100 * HOUR_S)
    assert (switched, loop.events_run) == ([True], 0)


def test_code_that_blocks_lets_time_pass_and_others_run():
    loop, told = EventLoop(), []

    def work():
        told.append(("begins", loop.now_s))
        task.sleep(3.0)
        told.append(("goes on", loop.now_s))

    task = Task(loop, work, lambda wake: wake())
    loop.call_at(1.0, task.begin)
    loop.call_at(2.0, lambda: told.append(("other", loop.now_s)))
    run(loop, 10.0)
    assert told == [("begins", 1.0), ("other", 2.0), ("goes on", 4.0)]


def test_what_a_task_raises_comes_out_where_it_was_woken():
    loop, caught = EventLoop(), []

    def work():
        task.sleep(1.0)
        raise KeyError("gone")

    def wake(action):
        try:
            action()
        except KeyError as error:
            caught.append(error)

    task = Task(loop, work, wake)
    loop.call_at(0.0, task.begin)
    run(loop, 5.0)
    assert len(caught) == 1


def test_a_killed_task_runs_its_finally_clauses_and_nothing_else():
    loop, told = EventLoop(), []

    def work():
        try:
            task.sleep(5.0)
            told.append("went on")
        finally:
            told.append("finally")

    task = Task(loop, work, lambda wake: wake())
    loop.call_at(0.0, task.begin)
    loop.call_at(1.0, task.kill)
    run(loop, 20.0)
    assert told == ["finally"]
    Task(loop, work, lambda wake: wake()).kill()  # one that never began


def test_a_light_stream_draws_as_a_heavy_one_does():
    heavy, light = Streams(1).of_device("d1"), Streams(1, many_devices=True).of_device("d1")
    assert isinstance(light, LightStream)
    assert light.getrandbits(48) < 2**48
    assert len(light.randbytes(9)) == 9
    for luck in (heavy, light):
        drawn = [luck.randint(2, 4) for _ in range(200)]
        assert set(drawn) == {2, 3, 4}
        assert {luck.randrange(3) for _ in range(200)} == {0, 1, 2}
        assert all(5.0 <= luck.uniform(5.0, 6.0) <= 6.0 for _ in range(200))
        assert 0.4 < sum(luck.random() for _ in range(2000)) / 2000 < 0.6


def test_what_is_asked_for_at_once_comes_after_what_was_due_now():
    loop, order = EventLoop(), []
    loop.call_at(1.0, lambda: (order.append("a"), loop.call_in(0.0, lambda: order.append("c"))))
    loop.call_at(1.0, lambda: order.append("b"))
    assert loop.next_at_s == 1.0
    while loop.step(2.0):
        pass
    assert order == ["a", "b", "c"]
    assert loop.next_at_s is None
