"""Fills the shelf: two small versions of one model, packaged as a controller does it."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from edgeloop_controller.packaging.package import package
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.manifest import ManifestDraft
from edgeloop_protocol.messages import Offer, Patch
from edgeloop_protocol.patch_formats import TENSORS
from edgeloop_simulators.bench.model import FEATURES, LABELS, mlp
from edgeloop_simulators.torture.versions import STREAM_NAME, write_offers

HIDDEN: Final = 640
"""A version has some 100 KB."""
BASELINE_ROWS: Final = 200


def fill(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    first = mlp(np.random.default_rng(1), HIDDEN)
    second = _nudged(first)
    offers = [_put(directory, name, artifact) for name, artifact in (("1", first), ("2", second))]
    write_offers(directory, offers, _patch(directory, offers[0], first, second))
    examples = np.random.default_rng(0).normal(size=(BASELINE_ROWS, FEATURES))
    np.savetxt(directory / STREAM_NAME, examples, delimiter=",", fmt="%.5f")


def _nudged(artifact: bytes) -> bytes:
    """The same but for the lowest bits of some weights, which lie in its middle."""
    middle = len(artifact) // 2
    nudged = bytearray(artifact)
    for place in range(middle, middle + 400, 40):
        nudged[place] ^= 1
    return bytes(nudged)


def _patch(directory: Path, base: Offer, first: bytes, second: bytes) -> Patch:
    content = make_tensor_patch(first, second)
    digest = hashlib.sha256(content).hexdigest()
    (directory / digest).write_bytes(content)
    return Patch(
        format=TENSORS,
        base_manifest_digest=base.manifest_digest,
        base_artifact_digest=base.artifact_digest,
        digest=digest,
        size_bytes=len(content),
    )


def _put(directory: Path, version: str, artifact: bytes) -> Offer:
    random = np.random.default_rng(int(version))
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
