"""Bringing back a champion's files that the medium damaged, or that are gone.

Invariants: begun when the champion's runner cannot load or prove what it loads; what is whole on
disk costs no network; nothing is barred and nothing is given up: what fails is tried again, for
ever, with backoff. The runner's own restarts go on meanwhile, and find the files mended.
"""

from collections.abc import Callable

from edgeloop_agent.core.effects import Effect, FetchArtifact, FetchManifest
from edgeloop_agent.core.events import ArtifactFetched, FetchFailed, ManifestFetched
from edgeloop_agent.core.waiting import Waiting
from edgeloop_protocol.messages import Offer


class Repair:
    """Of one slot. At most one version is underway: the champion of that time."""

    def __init__(self, slot: str, jitter: Callable[[], float]) -> None:
        self._slot = slot
        self._waiting = Waiting(jitter)
        self._offer: Offer | None = None

    @property
    def until(self) -> float | None:
        return self._waiting.until

    @property
    def why(self) -> str:
        """What it waits for, in words."""
        return f"the champion's files: {self._waiting.why}" if self._waiting.why else ""

    def is_of(self, digest: str) -> bool:
        return self._offer is not None and self._offer.manifest_digest == digest

    def begin(self, champion: Offer) -> list[Effect]:
        if self._offer == champion:
            return []  # underway, or waiting
        self._waiting.clear()
        self._offer = champion
        return [FetchManifest(self._slot, champion, is_installed=True)]

    def handle(
        self, event: ManifestFetched | ArtifactFetched | FetchFailed, now: float
    ) -> list[Effect]:
        if self._offer is None:
            return []
        if isinstance(event, FetchFailed):
            self._waiting.wait(event.detail, now)
            return []
        if isinstance(event, ManifestFetched):
            return [FetchArtifact(self._slot, self._offer)]
        self.end()
        return []

    def tick(self, now: float) -> list[Effect]:
        if self._offer is None or not self._waiting.is_over(now):
            return []
        self._waiting.until = None
        return [FetchManifest(self._slot, self._offer, is_installed=True)]

    def end(self) -> None:
        """It is whole, or no longer the champion."""
        self._waiting.clear()
        self._offer = None
