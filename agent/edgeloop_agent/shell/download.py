"""Fetching manifests and artifacts into the store: resumed, bounded, verified, synced.

Invariants: nothing reaches its final name unless its SHA-256 is the one asked for; never more than
the offered size is written; an artifact that is already on disk costs no network; where a patch is
offered it is tried first (`patch_route`).
"""

import hashlib
from collections.abc import Callable
from typing import Final

from edgeloop_agent.errors import (
    FetchCorruptError,
    FetchNoSpaceError,
    FetchUnreachableError,
)
from edgeloop_agent.ports import ArtifactSource
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path
from edgeloop_agent.shell.part_file import PartFiles, Wanted
from edgeloop_agent.shell.patch_route import PatchRoute
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES, MANIFEST_MAX_BYTES, MIB
from edgeloop_protocol.messages import Offer

DISK_RESERVE_BYTES: Final = 16 * MIB
"""Left free for the journal, the outbox and the rest of the device."""

NoteFetch = Callable[[Offer, str, str, str], None]
"""Says an event of a fetch: the offer, the slot, the event's name and detail."""


def _say_nothing(_offer: Offer, _slot: str, _name: str, _detail: str) -> None:
    pass


class Downloader:
    def __init__(
        self,
        source: ArtifactSource,
        store: ModelStore,
        disk_reserve_bytes: int = DISK_RESERVE_BYTES,
        patches: PatchRoute | None = None,
        note: NoteFetch = _say_nothing,
    ) -> None:
        self._source = source
        self._store = store
        self._disk = store.disk
        self._parts = PartFiles(source, store.disk, disk_reserve_bytes)
        self._patches = patches
        self._note = note

    def manifest(self, offer: Offer, cancelled: Callable[[], bool] = lambda: False) -> bytes:
        """The manifest's document, verified and stored. Raises a FetchError."""
        path = manifest_path(offer.manifest_digest)
        if self._disk.digest(path) == offer.manifest_digest:
            self._store.sync_names(offer.manifest_digest)
            return self._disk.read(path)
        size = offer.manifest_size_bytes
        if size > MANIFEST_MAX_BYTES:
            raise FetchCorruptError(
                f"a manifest of {size} bytes; the limit is {MANIFEST_MAX_BYTES}"
            )
        document = b""
        with self._source.open(offer.manifest_digest, 0) as chunks:
            for chunk in chunks:
                if cancelled():
                    raise FetchUnreachableError("no longer wanted")
                document += chunk
                if len(document) > size:
                    raise FetchCorruptError(f"the manifest is longer than the {size} bytes offered")
        if len(document) < size:
            raise FetchUnreachableError(f"the manifest ended after {len(document)} of {size} bytes")
        if hashlib.sha256(document).hexdigest() != offer.manifest_digest:
            raise FetchCorruptError("the manifest's bytes are not what its digest names")
        try:
            self._store.put_manifest(offer.manifest_digest, document)
        except OSError as error:
            raise FetchNoSpaceError(f"cannot store the manifest: {error}") from error
        return document

    def has_artifact(self, offer: Offer) -> bool:
        """Is a file of the right size there? (Its digest is checked by `artifact`.)"""
        return self._disk.size(model_path(offer.manifest_digest)) == offer.artifact_size_bytes

    def artifact(self, offer: Offer, cancelled: Callable[[], bool], slot: str = "") -> None:
        """Bring the artifact to its final place. Raises a FetchError."""
        if self._disk.digest(model_path(offer.manifest_digest)) == offer.artifact_digest:
            self._store.sync_names(offer.manifest_digest)
            return
        if offer.artifact_size_bytes > ARTIFACT_MAX_BYTES:
            raise FetchCorruptError(
                f"an artifact of {offer.artifact_size_bytes} bytes; "
                f"the limit is {ARTIFACT_MAX_BYTES}"
            )
        wanted = Wanted("artifact", offer.artifact_digest, offer.artifact_size_bytes, cancelled)
        try:
            path = self._patched(offer, cancelled, slot)
            if path is None:
                self._parts.bring(wanted)
            self._store.put_model(offer.manifest_digest, path or wanted.part)
        except OSError as error:
            raise FetchNoSpaceError(f"cannot store the artifact: {error}") from error

    def _patched(self, offer: Offer, cancelled: Callable[[], bool], slot: str) -> str | None:
        if self._patches is None:
            return None

        def note(name: str, detail: str) -> None:
            self._note(offer, slot, name, detail)

        return self._patches.take(offer, self._parts, cancelled, note)
