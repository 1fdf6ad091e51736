"""Fetching manifests and artifacts into the store: resumed, bounded, verified, synced.

Invariants: nothing reaches its final name unless its SHA-256 is the one asked for; never more than
the offered size is written; a partial file is resumed, and removed once its digest is wrong; an
artifact that is already on disk costs no network. Only bytes that all came in one go can be called
corrupt: what a power cut left of an earlier try says nothing about the server.
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
from edgeloop_agent.shell.durable_files import write_all
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path, part_path
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES, MANIFEST_MAX_BYTES, MIB
from edgeloop_protocol.messages import Offer

DISK_RESERVE_BYTES: Final = 16 * MIB
"""Left free for the journal, the outbox and the rest of the device."""


class Downloader:
    def __init__(
        self,
        source: ArtifactSource,
        store: ModelStore,
        disk_reserve_bytes: int = DISK_RESERVE_BYTES,
    ) -> None:
        self._source = source
        self._store = store
        self._disk = store.disk
        self._disk_reserve_bytes = disk_reserve_bytes

    def manifest(self, offer: Offer) -> bytes:
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

    def artifact(self, offer: Offer, cancelled: Callable[[], bool]) -> None:
        """Bring the artifact to its final place. Raises a FetchError."""
        if self._disk.digest(model_path(offer.manifest_digest)) == offer.artifact_digest:
            self._store.sync_names(offer.manifest_digest)
            return
        if offer.artifact_size_bytes > ARTIFACT_MAX_BYTES:
            raise FetchCorruptError(
                f"an artifact of {offer.artifact_size_bytes} bytes; "
                f"the limit is {ARTIFACT_MAX_BYTES}"
            )
        part = part_path(offer.artifact_digest)
        try:
            is_resumed = bool(self._disk.size(part))
            if not self._is_filled_right(part, offer, cancelled) and (
                not is_resumed or not self._is_filled_right(part, offer, cancelled)
            ):
                raise FetchCorruptError("the artifact's bytes are not what its digest names")
            self._store.put_model(offer.manifest_digest, part)
        except OSError as error:
            raise FetchNoSpaceError(f"cannot store the artifact: {error}") from error

    def _is_filled_right(self, part: str, offer: Offer, cancelled: Callable[[], bool]) -> bool:
        """What is wrong is removed: the next one begins anew."""
        self._fill(part, offer, cancelled)
        digest = self._disk.digest(part)
        if digest is None:
            raise FetchNoSpaceError("the downloaded artifact cannot be read back")
        is_right = digest == offer.artifact_digest
        if not is_right:
            self._disk.remove(part)
        return is_right

    def _fill(self, part: str, offer: Offer, cancelled: Callable[[], bool]) -> None:
        size = offer.artifact_size_bytes
        have = self._disk.size(part) or 0
        if have > size:
            self._disk.remove(part)
            have = 0
        free = self._disk.free_bytes()
        if free < size - have + self._disk_reserve_bytes:
            raise FetchNoSpaceError(f"disk: {free} bytes free, {size - have} to download")
        with self._disk.open(part, append=True) as file:
            try:
                if have < size:
                    have = self._append(file.write, have, offer, cancelled)
            finally:
                # Also of a file that was whole already: a kill may have come before its sync.
                file.sync()
        if have < size:
            raise FetchUnreachableError(f"the download ended after {have} of {size} bytes")

    def _append(
        self, write: Callable[[bytes], int], have: int, offer: Offer, cancelled: Callable[[], bool]
    ) -> int:
        size = offer.artifact_size_bytes
        with self._source.open(offer.artifact_digest, have) as chunks:
            for chunk in chunks:
                if cancelled():
                    raise FetchUnreachableError("no longer wanted")
                have += len(chunk)
                if have > size:
                    self._disk.remove(part_path(offer.artifact_digest))
                    raise FetchCorruptError(f"the artifact is longer than the {size} bytes offered")
                write_all(write, chunk)
        return have
