"""The heap of events that a virtual world runs on.

Invariants: time never goes back; events of one time run in the order in which they were asked for;
a cancelled event never runs and costs nothing later than its time.
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Timer:
    """One event; `cancel` it any time."""

    __slots__ = ("action", "at_s")

    def __init__(self, at_s: float, action: Action) -> None:
        self.at_s = at_s
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None


class EventLoop:
    """`now_s` is virtual seconds since the world's beginning."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events_run = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._now: deque[Timer] = deque()
        """Asked for at the time that it is: after all that stands in the heap for that time."""
        self._order = count()

    def call_at(self, at_s: float, action: Action) -> Timer:
        """A time that has passed means now, after what is due already."""
        if at_s <= self.now_s:
            timer = Timer(self.now_s, action)
            self._now.append(timer)
        else:
            timer = Timer(at_s, action)
            heapq.heappush(self._heap, (at_s, next(self._order), timer))
        return timer

    def call_in(self, delay_s: float, action: Action) -> Timer:
        return self.call_at(self.now_s + delay_s, action)

    @property
    def next_at_s(self) -> float | None:
        """When the next event is due; None: nothing is planned."""
        if self._now:
            return self.now_s
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def step(self, until_s: float) -> bool:
        """Run the next event that is due by `until_s`; False when there is none."""
        heap, at_once = self._heap, self._now
        while True:
            if at_once and not (heap and heap[0][0] <= self.now_s):
                timer = at_once.popleft()
            elif heap and heap[0][0] <= until_s:
                timer = heapq.heappop(heap)[2]
            else:
                self.now_s = max(self.now_s, until_s)
                return False
            action = timer.action
            if action is not None:
                timer.action = None
                self.now_s = timer.at_s
                self.events_run += 1
                action()
                return True
