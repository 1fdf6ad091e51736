"""Code that blocks in production (a download in its thread), run in virtual time as it stands.

Each task is a greenlet: where the real code would wait for the network, `sleep` gives the loop its
turn back. The pattern is simpy's and gevent's; one thread, no preemption, and the order of things
is the loop's.

Invariants: a task that is killed runs nothing further but `finally` clauses; what it raises comes
out of the event in which it was woken.
"""

from collections.abc import Callable

import greenlet

from edgeloop_simulators.virtual.kernel.loop import EventLoop, Timer


class Task:
    """Runs `work` at once, up to its first sleep; `wake` runs what follows a sleep."""

    __slots__ = ("_greenlet", "_loop", "_timer", "_wake", "_work")

    def __init__(
        self, loop: EventLoop, work: Callable[[], None], wake: Callable[[Callable[[], None]], None]
    ) -> None:
        """`wake` is given the continuation, so that whoever owns the task can mind what comes out
        of it."""
        self._loop = loop
        self._wake = wake
        self._timer: Timer | None = None
        self._work = work
        self._greenlet: greenlet.greenlet | None = None

    def begin(self) -> None:
        """To be called from the loop: it is there that a sleep returns to."""
        self._greenlet = greenlet.greenlet(self._work)
        self._greenlet.switch()

    def sleep(self, delay_s: float) -> None:
        """Only from within the task."""
        running = self._greenlet
        assert running is not None
        self._timer = self._loop.call_in(delay_s, lambda: self._wake(running.switch))
        running.parent.switch()

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._greenlet:
            self._greenlet.throw(greenlet.GreenletExit)
