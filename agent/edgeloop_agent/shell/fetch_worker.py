"""The download thread: takes fetches one by one, answers with events; never touches a runner.

Invariants: a busy or hanging download delays nothing but other downloads; the answer to a fetch is
exactly one event; a download of a version that is no longer kept is given up at the next chunk, and
one that waits for its cap, or is told to stop, at once.
"""

import queue
import threading
from collections.abc import Callable
from typing import Final

from edgeloop_agent.ports import Fetch, Post
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch import perform
from edgeloop_agent.shell.trust_gate import TrustGate
from edgeloop_protocol.messages import Inventory

STOP_TIMEOUT_S: Final = 2.0


class FetchWorker:
    def __init__(
        self,
        downloader: Downloader,
        take_inventory: Callable[[], Inventory],
        post: Post,
        wake: Callable[[], None] = lambda: None,
        gate: TrustGate | None = None,
    ) -> None:
        """`wake`: whoever waits within the downloader shall look whether it is still wanted."""
        self._downloader = downloader
        self._take_inventory = take_inventory
        self._post = post
        self._wake = wake
        self._gate = gate
        self._wanted: frozenset[str] = frozenset()
        self._fetches: queue.SimpleQueue[Fetch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, fetch: Fetch) -> None:
        self._wanted |= {fetch.offer.manifest_digest}
        self._fetches.put(fetch)

    def keep(self, manifests: frozenset[str]) -> None:
        """Give up fetches of other versions."""
        self._wanted = manifests
        self._wake()

    def stop(self) -> None:
        """A download that blocks in the network is left to die with the process: it resumes."""
        self._wanted = frozenset()
        self._fetches.put(None)
        self._wake()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while (fetch := self._fetches.get()) is not None:
            digest = fetch.offer.manifest_digest
            self._post(
                perform(
                    fetch,
                    self._downloader,
                    self._take_inventory,
                    lambda digest=digest: digest not in self._wanted,  # type: ignore[misc]
                    gate=self._gate,
                )
            )
