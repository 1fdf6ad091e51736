"""The agent's Fetcher in virtual time: the real `fetch.perform`, one fetch after the other.

Invariants: as the real one's: exactly one event answers each fetch; a busy one delays nothing but
other fetches; a fetch of what is no longer kept is given up at its next chunk.
"""

from collections import deque
from collections.abc import Callable

from edgeloop_agent.core.events import Event
from edgeloop_agent.ports import Fetch
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch import FetchEvent, perform
from edgeloop_protocol.messages import Inventory
from edgeloop_simulators.virtual.device.known import parse_known
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.tasks import Task

Guard = Callable[[Callable[[], None]], None]


class VirtualFetcher:
    """`guard` runs what may end the process; `sleep` is for the source that `use` brings."""

    __slots__ = (
        "_downloader",
        "_fetches",
        "_guard",
        "_loop",
        "_post",
        "_take_inventory",
        "_task",
        "_wanted",
        "ended",
    )

    def __init__(
        self,
        loop: EventLoop,
        take_inventory: Callable[[], Inventory],
        post: Callable[[Event], None],
        guard: Guard,
        ended: Callable[[Fetch, FetchEvent], None],
    ) -> None:
        self._loop = loop
        self._downloader: Downloader | None = None
        self._take_inventory = take_inventory
        self._post = post
        self._guard = guard
        self.ended = ended
        self._fetches: deque[Fetch] = deque()
        self._wanted: frozenset[str] = frozenset()
        self._task: Task | None = None

    def use(self, downloader: Downloader) -> None:
        """The downloader, whose source sleeps by this fetcher."""
        self._downloader = downloader

    def sleep(self, delay_s: float) -> None:
        assert self._task is not None
        self._task.sleep(delay_s)

    def start(self) -> None:
        """Nothing runs before there is something to fetch."""

    def submit(self, fetch: Fetch) -> None:
        self._wanted |= {fetch.offer.manifest_digest}
        self._fetches.append(fetch)
        self._next()

    def keep(self, manifests: frozenset[str]) -> None:
        self._wanted = manifests

    def stop(self) -> None:
        """Also what a kill does to it."""
        self._fetches.clear()
        task, self._task = self._task, None
        if task is not None:
            task.kill()

    @property
    def waiting(self) -> int:
        return len(self._fetches)

    def _next(self) -> None:
        if self._task is not None or not self._fetches:
            return
        fetch = self._fetches.popleft()
        task = self._task = Task(self._loop, lambda: self._perform(fetch), self._guard)
        # A thread of its own would begin it a moment later, not within the call.
        self._loop.call_in(0.0, lambda: self._begin(task))

    def _begin(self, task: Task) -> None:
        if self._task is task:
            self._guard(task.begin)

    def _perform(self, fetch: Fetch) -> None:
        assert self._downloader is not None
        task, digest = self._task, fetch.offer.manifest_digest
        event = perform(
            fetch,
            self._downloader,
            self._take_inventory,
            lambda: digest not in self._wanted,
            parse_known,
        )
        if self._task is not task:
            return  # the process ended meanwhile
        self.ended(fetch, event)
        self._task = None
        self._post(event)
        self._next()
