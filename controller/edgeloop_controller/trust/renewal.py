"""What the controller signs by itself: which metadata is current.

Invariants: pure but for the signers; versions grow by one; nothing is signed anew that is current,
signed by the keys in force and has more than half of its life ahead.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from edgeloop_controller.trust.metadata import (
    SNAPSHOT,
    TIMESTAMP,
    Document,
    Standing,
    document_of,
)
from edgeloop_protocol.errors import TrustError

RENEWED_AT_FRACTION: Final = 0.5
"""Of a life: the rest is how long a controller may be down before devices wait."""


@dataclass(frozen=True)
class Lives:
    """For how long the online roles are signed."""

    snapshot: timedelta
    timestamp: timedelta


@dataclass(frozen=True)
class Online:
    snapshot: Document[Snapshot]
    timestamp: Document[Timestamp]


def renewed(
    standing: Standing,
    online: Online | None,
    signers: Mapping[str, Signer],
    now: datetime,
    lives: Lives,
) -> Online:
    """`online` itself where nothing is due. Raises TrustError when a key is missing."""
    root = standing.root.signed
    snapshot = online.snapshot if online else None
    files = _listed(standing, snapshot)
    if (
        snapshot is None
        or files != snapshot.signed.meta
        or _due(snapshot, root, now, lives.snapshot)
    ):
        version = snapshot.version + 1 if snapshot else 1
        signed = Snapshot(version=version, expires=now + lives.snapshot, meta=files)
        snapshot = document_of(SNAPSHOT, _signed(Metadata(signed), SNAPSHOT, root, signers))
    timestamp = online.timestamp if online else None
    current = _meta_file(snapshot)
    if (
        timestamp is None
        or timestamp.signed.snapshot_meta != current
        or _due(timestamp, root, now, lives.timestamp)
    ):
        version = timestamp.version + 1 if timestamp else 1
        stamped = Timestamp(version=version, expires=now + lives.timestamp, snapshot_meta=current)
        timestamp = document_of(TIMESTAMP, _signed(Metadata(stamped), TIMESTAMP, root, signers))
    unchanged = online and snapshot is online.snapshot and timestamp is online.timestamp
    return online if online and unchanged else Online(snapshot, timestamp)


def _listed(standing: Standing, before: Document[Snapshot] | None) -> dict[str, MetaFile]:
    """A role that was listed once is listed for ever: a client refuses a snapshot that lost one."""
    files = dict(before.signed.meta) if before else {}
    files.update({f"{role}.json": _meta_file(one) for role, one in standing.roles.items()})
    return files


def _meta_file(document: Document[Any]) -> MetaFile:
    hashes = {"sha256": hashlib.sha256(document.content).hexdigest()}
    return MetaFile(document.version, len(document.content), hashes)


def _due(document: Document[Any], root: Root, now: datetime, life: timedelta) -> bool:
    if document.expires - now <= life * RENEWED_AT_FRACTION:
        return True
    metadata = document.metadata
    try:
        root.verify_delegate(document.role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        return True
    return False


def _signed(
    metadata: Metadata[Any], role: str, root: Root, signers: Mapping[str, Signer]
) -> Metadata[Any]:
    keyids = root.roles[role].keyids
    held = [signers[keyid] for keyid in keyids if keyid in signers]
    if len(held) < root.roles[role].threshold:
        raise TrustError(
            f"{role} cannot be renewed: of its keys the controller holds {len(held)} of "
            f"{root.roles[role].threshold}",
            "restore <data_dir>/trust/keys, or `edgeloop trust rotate online`",
        )
    for signer in held:
        metadata.sign(signer, append=True)
    return metadata
