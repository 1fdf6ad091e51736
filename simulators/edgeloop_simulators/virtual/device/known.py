"""Documents that thousands of devices read, each parsed once.

Invariant: what is returned is frozen, so that it can be shared.
"""

from functools import lru_cache
from typing import Final

from edgeloop_protocol.manifest import Manifest, parse_manifest

MANIFESTS_KEPT_MAX: Final = 64


@lru_cache(maxsize=MANIFESTS_KEPT_MAX)
def parse_known(document: bytes) -> Manifest:
    """As `parse_manifest`. Raises ManifestError."""
    return parse_manifest(document)
