"""The versions on this device's disk: `models/<manifest digest>/{manifest.json, model.onnx}`.

Invariants: a file under its final name was verified and synced; a partial download is
`models/<artifact digest>.part`; what is not kept is removed, and nothing else is touched.
"""

import hashlib
import logging
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from edgeloop_agent.shell.durable_files import sync_directory, write_durably
from edgeloop_protocol.limits import MIB

logger = logging.getLogger(__name__)

DIRECTORY_NAME: Final = "models"
PART_SUFFIX: Final = ".part"


class ModelStore:
    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / DIRECTORY_NAME
        self._root.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self._root

    def manifest_path(self, manifest_digest: str) -> Path:
        return self._root / manifest_digest / "manifest.json"

    def model_path(self, manifest_digest: str) -> Path:
        return self._root / manifest_digest / "model.onnx"

    def part_path(self, artifact_digest: str) -> Path:
        return self._root / f"{artifact_digest}{PART_SUFFIX}"

    def put_manifest(self, manifest_digest: str, document: bytes) -> None:
        path = self.manifest_path(manifest_digest)
        path.parent.mkdir(exist_ok=True)
        write_durably(path, document)
        sync_directory(self._root)

    def put_model(self, manifest_digest: str, part: Path) -> None:
        """Move a verified and synced file to its final name."""
        path = self.model_path(manifest_digest)
        path.parent.mkdir(exist_ok=True)
        part.replace(path)
        sync_directory(path.parent)
        sync_directory(self._root)

    def collect_garbage(self, manifests: AbstractSet[str], artifacts: AbstractSet[str]) -> None:
        for path in self._root.iterdir():
            if path.is_dir():
                if path.name not in manifests:
                    shutil.rmtree(path, ignore_errors=True)
            elif path.name.removesuffix(PART_SUFFIX) not in artifacts:
                path.unlink(missing_ok=True)


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file; None when it is not there or cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 * MIB):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()
