"""Where artifacts and manifests are kept: content-addressed bytes behind a port.

Invariants: a digest names exactly one content for ever; what `put` has returned survives a power
cut (file and directories are fsynced); a reader never sees a part of a file; two writers of the
same content agree. tests/contracts/test_artifact_store_contract.py holds every adapter to this.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final, Protocol

from edgeloop_controller.durable_names import sync_directory
from edgeloop_controller.errors import ArtifactError, NotFoundError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX_CHARS: Final = 2  # one directory for 1/256 of the digests


class ArtifactStore(Protocol):
    """Bytes by their SHA-256 (lower-case hex)."""

    def put(self, content: bytes) -> str:
        """Keep `content` and return its digest; keeping it twice is keeping it once.

        Raises ArtifactError when it cannot be kept (disk full, no permission).
        """

    def get(self, digest: str) -> bytes:
        """The content, verified. Raises NotFoundError, or ArtifactError when it is damaged."""

    def remove(self, digest: str) -> None:
        """Forget it; what is not there is removed already. Who reads it still reads it whole."""

    def local_path(self, digest: str) -> Path:
        """A file that holds the content, to be served by ranges. Raises NotFoundError."""


class LocalArtifactStore:
    """A directory: `<root>/<first two digits>/<digest>`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"cannot make the artifact directory {root}: {error}") from error
        self._remove_leftovers()

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        try:
            if not path.exists():
                self._write(path, content)
        except OSError as error:
            raise ArtifactError(
                f"cannot keep artifact {digest[:12]} ({len(content)} bytes) in {self._root}: "
                f"{error.strerror}",
                hint="free disk space or mend the directory's permissions, then publish again",
            ) from error
        return digest

    def get(self, digest: str) -> bytes:
        content = self.local_path(digest).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ArtifactError(
                f"artifact {digest} in {self._root} is damaged",
                hint="restore the file from a backup, or publish the same bytes again after "
                "removing it",
            )
        return content

    def remove(self, digest: str) -> None:
        if _DIGEST.fullmatch(digest):
            self._path(digest).unlink(missing_ok=True)

    def local_path(self, digest: str) -> Path:
        if _DIGEST.fullmatch(digest) and (path := self._path(digest)).is_file():
            return path
        raise NotFoundError(f"no artifact {digest!r}", hint="publish the version that names it")

    def _path(self, digest: str) -> Path:
        return self._root / digest[:_PREFIX_CHARS] / digest

    def _write(self, path: Path, content: bytes) -> None:
        new_directory = not path.parent.exists()
        path.parent.mkdir(exist_ok=True)
        partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
        if new_directory:
            sync_directory(self._root)

    def _remove_leftovers(self) -> None:
        for partial in self._root.glob("*/.*.part"):
            partial.unlink(missing_ok=True)
