"""The download thread: takes fetches one by one, answers with events; never touches a runner.

Invariants: a busy or hanging download delays nothing but other downloads; the answer to a fetch is
exactly one event; a download of a version that is no longer kept is given up at the next chunk.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from edgeloop_agent.core.effects import FetchArtifact, FetchManifest
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    FetchProblem,
    ManifestFetched,
)
from edgeloop_agent.errors import FetchCorruptError, FetchError
from edgeloop_agent.ports import Post
from edgeloop_agent.shell.download import Downloader
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import parse_manifest
from edgeloop_protocol.messages import Inventory

logger = logging.getLogger(__name__)

Fetch = FetchManifest | FetchArtifact
STOP_TIMEOUT_S: Final = 2.0


class FetchWorker:
    def __init__(
        self, downloader: Downloader, take_inventory: Callable[[], Inventory], post: Post
    ) -> None:
        self._downloader = downloader
        self._take_inventory = take_inventory
        self._post = post
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

    def stop(self) -> None:
        """A download that blocks in the network is left to die with the process: it resumes."""
        self._wanted = frozenset()
        self._fetches.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while (fetch := self._fetches.get()) is not None:
            try:
                event = self._perform(fetch)
            except Exception as error:  # a bug must not end the thread: the slot tries again
                logger.exception("fetching %s failed", fetch.offer.ref)
                event = _failed(fetch, FetchProblem.WAIT, f"internal: {error!r}")
            self._post(event)

    def _perform(self, fetch: Fetch) -> ManifestFetched | ArtifactFetched | FetchFailed:
        offer = fetch.offer
        try:
            if isinstance(fetch, FetchArtifact):
                self._downloader.artifact(offer, lambda: offer.manifest_digest not in self._wanted)
                return ArtifactFetched(fetch.slot, offer.manifest_digest)
            manifest = parse_manifest(self._downloader.manifest(offer))
            return ManifestFetched(
                fetch.slot,
                offer.manifest_digest,
                manifest,
                self._take_inventory(),
                self._downloader.has_artifact(offer),
            )
        except ManifestError as error:
            return _failed(fetch, FetchProblem.UNUSABLE, str(error))
        except FetchCorruptError as error:
            return _failed(fetch, FetchProblem.CORRUPT, str(error))
        except FetchError as error:
            return _failed(fetch, FetchProblem.WAIT, str(error))


def _failed(fetch: Fetch, problem: FetchProblem, detail: str) -> FetchFailed:
    return FetchFailed(fetch.slot, fetch.offer.manifest_digest, problem, detail)
