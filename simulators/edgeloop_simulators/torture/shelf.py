"""Fills the shelf: two small versions of one model, packaged as a controller does it."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from edgeloop_controller.packaging.package import package
from edgeloop_protocol.manifest import ManifestDraft
from edgeloop_protocol.messages import Offer
from edgeloop_simulators.bench.model import FEATURES, LABELS, mlp
from edgeloop_simulators.torture.versions import STREAM_NAME, write_offers

HIDDEN: Final = 640
"""A version has some 100 KB."""
BASELINE_ROWS: Final = 200


def fill(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_offers(directory, [_put(directory, name) for name in ("1", "2")])
    examples = np.random.default_rng(0).normal(size=(BASELINE_ROWS, FEATURES))
    np.savetxt(directory / STREAM_NAME, examples, delimiter=",", fmt="%.5f")


def _put(directory: Path, version: str) -> Offer:
    random = np.random.default_rng(int(version))
    artifact = mlp(random, HIDDEN)
    examples = random.normal(size=(BASELINE_ROWS, FEATURES)).astype(np.float32)
    names = tuple(f"f{number}" for number in range(FEATURES))
    table = pa.table({name: examples[:, number] for number, name in enumerate(names)})
    manifest = package(
        artifact, "tortured", version, ManifestDraft(features=names, labels=LABELS), table
    )
    document = manifest.canonical()
    digest = hashlib.sha256(document).hexdigest()
    (directory / digest).write_bytes(document)
    (directory / manifest.artifact.digest).write_bytes(artifact)
    return Offer(
        name=manifest.name,
        version=manifest.version,
        manifest_digest=digest,
        manifest_size_bytes=len(document),
        artifact_digest=manifest.artifact.digest,
        artifact_size_bytes=manifest.artifact.size_bytes,
    )
