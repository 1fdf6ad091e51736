"""Published versions with their manifests: rows from the database, bytes from the artifact store.

Invariants: a manifest never changes, so what was parsed once is kept (a bounded number of them).
"""

from functools import lru_cache
from typing import Final

from edgeloop_controller.artifacts import ArtifactStore
from edgeloop_protocol.manifest import Manifest, parse_manifest

MANIFESTS_KEPT_MAX: Final = 64


class Registry:
    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts
        self._load = lru_cache(maxsize=MANIFESTS_KEPT_MAX)(self._read)

    def manifest(self, manifest_digest: str) -> Manifest:
        """Raises NotFoundError or ArtifactError."""
        return self._load(manifest_digest)

    def _read(self, manifest_digest: str) -> Manifest:
        return parse_manifest(self.artifacts.get(manifest_digest))
