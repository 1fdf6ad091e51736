"""TUF metadata as documents: names, limits, reading, what stands in targets.

Invariants: pure; a document keeps the bytes that it was read from, which are what its hash is of;
whatever is read raises nothing but TrustError.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, cast

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.limits import NAME_MAX_CHARS
from edgeloop_protocol.messages import NAME_PATTERN
from edgeloop_protocol.signed_release import (
    PARTS,
    SignedRelease,
    release_of_target,
    target_name,
)

ROOT: Final = "root"
TARGETS: Final = "targets"
SNAPSHOT: Final = "snapshot"
TIMESTAMP: Final = "timestamp"
TOP_LEVEL: Final = frozenset({ROOT, TARGETS, SNAPSHOT, TIMESTAMP})
ONLINE: Final = (SNAPSHOT, TIMESTAMP)

# As python-tuf's client takes at most, so that no device refuses what was accepted here.
ROOT_MAX_BYTES: Final = 512_000
TIMESTAMP_MAX_BYTES: Final = 16_384
SNAPSHOT_MAX_BYTES: Final = 2_000_000
TARGETS_MAX_BYTES: Final = 5_000_000
MAX_BYTES: Final[Mapping[str, int]] = {
    ROOT: ROOT_MAX_BYTES,
    TIMESTAMP: TIMESTAMP_MAX_BYTES,
    SNAPSHOT: SNAPSHOT_MAX_BYTES,
}
DELEGATIONS_MAX: Final = 32
"""Models with keys of their own; as many as python-tuf's client looks into."""

_FILE: Final = re.compile(
    rf"(?:timestamp|(?P<version>[1-9][0-9]{{0,9}})\.(?P<role>[A-Za-z0-9][A-Za-z0-9_.+-]"
    rf"{{0,{NAME_MAX_CHARS - 1}}}))\.json"
)
_NAME: Final = re.compile(NAME_PATTERN)
_KINDS: Final[Mapping[str, type]] = {ROOT: Root, SNAPSHOT: Snapshot, TIMESTAMP: Timestamp}

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Document(Generic[T]):
    """One role's metadata, and the bytes that it is served as."""

    role: str
    metadata: Metadata[T]
    content: bytes

    @property
    def signed(self) -> T:
        return self.metadata.signed

    @property
    def version(self) -> int:
        return int(self.signed.version)

    @property
    def expires(self) -> datetime:
        return self.signed.expires

    @property
    def file_name(self) -> str:
        return file_name(self.role, self.version)

    def says_the_same_as(self, other: "Document[Any]") -> bool:
        """Signatures apart."""
        return self.metadata.signed_bytes == other.metadata.signed_bytes


@dataclass(frozen=True)
class Standing:
    """What people signed and is in force; `roles`: `targets`, and each delegated role that has
    metadata."""

    root: Document[Root]
    roles: Mapping[str, Document[Targets]]

    @property
    def targets(self) -> Document[Targets]:
        return self.roles[TARGETS]


def file_name(role: str, version: int) -> str:
    """By which it is served: consistent snapshots, so only the timestamp has no version."""
    return "timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json"


def is_file_name(name: str) -> bool:
    return _FILE.fullmatch(name) is not None


def role_and_version(name: str) -> tuple[str, int]:
    """Of a file; the timestamp's version does not stand in its name, and is given as 0. Raises
    TrustError for what is no name of metadata."""
    found = _FILE.fullmatch(name)
    if found is None:
        raise TrustError(f"{name!r} is no name of metadata: N.root.json, timestamp.json, …")
    return (found["role"], int(found["version"])) if found["role"] else (TIMESTAMP, 0)


def is_model_role(role: str) -> bool:
    """Whether a role may be delegated to: it is named as a model is."""
    named = _NAME.fullmatch(role) is not None and len(role) <= NAME_MAX_CHARS
    return named and role not in TOP_LEVEL


def document_of(role: str, metadata: Metadata[T]) -> Document[T]:
    """As it will be served. Raises TrustError when it is too large for a device."""
    content = metadata.to_bytes()
    _check_size(role, content)
    return Document(role, metadata, content)


def read_document(role: str, content: bytes) -> Document[Any]:
    """Raises TrustError naming the role; signatures are not looked at."""
    _check_size(role, content)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
    except (DeserializationError, RecursionError) as error:
        raise TrustError(f"{role}: this is no TUF metadata: {error.__cause__ or error}") from error
    if type(metadata.signed) is not _KINDS.get(role, Targets):
        raise TrustError(f"{role}: this is metadata of type {metadata.signed.type}")
    return Document(role, metadata, content)


def read_root(content: bytes) -> Document[Root]:
    return cast(Document[Root], read_document(ROOT, content))


def read_targets(role: str, content: bytes) -> Document[Targets]:
    return cast(Document[Targets], read_document(role, content))


def releases_of(document: Document[Targets]) -> dict[tuple[str, str], SignedRelease]:
    """(model, version) → what is signed of it, of one role. Raises TrustError for any target that
    is not one of the two of a release that says the same in both."""
    found: dict[tuple[str, str], SignedRelease] = {}
    parts: dict[tuple[str, str], int] = {}
    for name, target in document.signed.targets.items():
        release = release_of_target(name, target.length, target.hashes, target.custom)
        key = release.model, release.version
        if found.setdefault(key, release) != release:
            raise TrustError(f"{document.role}: the two targets of {'@'.join(key)} differ")
        parts[key] = parts.get(key, 0) + 1
    for key, count in parts.items():
        if count != len(PARTS):
            missing = [p for p in PARTS if target_name(*key, p) not in document.signed.targets]
            raise TrustError(f"{document.role}: {'@'.join(key)} has no target {missing[0]}")
    return found


def all_releases(roles: Iterable[Document[Targets]]) -> dict[tuple[str, str], SignedRelease]:
    """Of all roles. Raises TrustError when two roles sign one version, or two versions of a model
    have one counter."""
    found: dict[tuple[str, str], SignedRelease] = {}
    counters: dict[tuple[str, int], str] = {}
    for document in roles:
        for key, release in releases_of(document).items():
            if key in found:
                raise TrustError(f"{'@'.join(key)} is signed by two roles: leave it to one")
            found[key] = release
            other = counters.setdefault((release.model, release.release), release.version)
            if other != release.version:
                raise TrustError(
                    f"release {release.release} of {release.model} is {other} and "
                    f"{release.version}: a counter is used once"
                )
    return found


def at(time_s: float) -> datetime:
    """Seconds since 1970 as TUF writes times. Raises TrustError for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(time_s, UTC).replace(microsecond=0)
    except (ValueError, OverflowError, OSError) as error:
        raise TrustError(f"{time_s:g} s after 1970 is no time that can be signed") from error


def _check_size(role: str, content: bytes) -> None:
    limit = MAX_BYTES.get(role, TARGETS_MAX_BYTES)
    if len(content) > limit:
        raise TrustError(
            f"{role}: {len(content)} bytes of metadata; devices take {limit}",
            "withdraw versions that no device runs, or delegate models to roles of their own",
        )
