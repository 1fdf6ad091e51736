"""Fetching manifests and artifacts into the store: resumed, bounded, verified, synced.

Invariants: nothing reaches its final name unless its SHA-256 is the one asked for; never more than
the offered size is written; a partial file is resumed, and removed once its digest is wrong; an
artifact that is already on disk costs no network.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeloop_agent.errors import (
    FetchCorruptError,
    FetchNoSpaceError,
    FetchUnreachableError,
)
from edgeloop_agent.ports import ArtifactSource
from edgeloop_agent.shell.model_store import ModelStore, file_digest
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES, MANIFEST_MAX_BYTES, MIB
from edgeloop_protocol.messages import Offer

DISK_RESERVE_BYTES: Final = 16 * MIB
"""Left free for the journal, the outbox and the rest of the device."""


class Downloader:
    def __init__(
        self,
        source: ArtifactSource,
        store: ModelStore,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._source = source
        self._store = store
        self._free_bytes = free_bytes

    def manifest(self, offer: Offer) -> bytes:
        """The manifest's document, verified and stored. Raises a FetchError."""
        path = self._store.manifest_path(offer.manifest_digest)
        if file_digest(path) == offer.manifest_digest:
            return path.read_bytes()
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
        path = self._store.model_path(offer.manifest_digest)
        return path.is_file() and path.stat().st_size == offer.artifact_size_bytes

    def artifact(self, offer: Offer, cancelled: Callable[[], bool]) -> None:
        """Bring the artifact to its final place. Raises a FetchError."""
        if file_digest(self._store.model_path(offer.manifest_digest)) == offer.artifact_digest:
            return
        if offer.artifact_size_bytes > ARTIFACT_MAX_BYTES:
            raise FetchCorruptError(
                f"an artifact of {offer.artifact_size_bytes} bytes; "
                f"the limit is {ARTIFACT_MAX_BYTES}"
            )
        part = self._store.part_path(offer.artifact_digest)
        try:
            self._fill(part, offer, cancelled)
            if file_digest(part) != offer.artifact_digest:
                part.unlink()
                raise FetchCorruptError("the artifact's bytes are not what its digest names")
            self._store.put_model(offer.manifest_digest, part)
        except OSError as error:
            raise FetchNoSpaceError(f"cannot store the artifact: {error}") from error

    def _fill(self, part: Path, offer: Offer, cancelled: Callable[[], bool]) -> None:
        size = offer.artifact_size_bytes
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if have == size:
            return
        free = self._free_bytes(self._store.root)
        if free < size - have + DISK_RESERVE_BYTES:
            raise FetchNoSpaceError(f"disk: {free} bytes free, {size - have} to download")
        with part.open("ab") as file:
            try:
                have = self._append(file.write, have, offer, cancelled)
            finally:
                file.flush()
                os.fsync(file.fileno())
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
                    self._store.part_path(offer.artifact_digest).unlink(missing_ok=True)
                    raise FetchCorruptError(f"the artifact is longer than the {size} bytes offered")
                write(chunk)
        return have
