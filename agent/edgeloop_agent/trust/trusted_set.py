"""Which metadata is believed: one document after the other, in TUF's order (spec 1.0, section 5).

Invariants: pure; no document is believed but by what is already here; a role's document is believed
on the path of delegations that it was verified on and on no other; what has expired serves only to
turn away something older. Every failure is a MetadataError in words.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edgeloop_agent.errors import MetadataError, MetadataExpiredError

Path = tuple[str, ...]
"""Of delegations: (`targets`,), (`targets`, ROLE) …"""
TOP: Path = (Targets.type,)

Document = TypeVar("Document", Root, Timestamp, Snapshot, Targets)


class TrustedSet:
    """Of one refresh, as of `now` (with a time zone): what it takes, it keeps."""

    def __init__(self, root: bytes, now: datetime) -> None:
        """`root`: trusted because it is, so verified by itself only; it may have expired."""
        self._now = now
        with _in_words(Root.type):
            believed = _parse(Root, root)
            believed.signed.verify_delegate(Root.type, believed.signed_bytes, believed.signatures)
        self._root: Root = believed.signed
        self._timestamp: Timestamp | None = None
        self._snapshot: Snapshot | None = None
        self._targets: dict[Path, Targets] = {}

    @property
    def root(self) -> Root:
        return self._root

    @property
    def snapshot_wanted(self) -> MetaFile:
        """What the timestamp says of the snapshot."""
        assert self._timestamp is not None
        return self._timestamp.snapshot_meta

    def take_root(self, document: bytes) -> None:
        """The next version, signed by its own keys and by those of the root that is here."""
        assert self._timestamp is None, "the root comes first"
        with _in_words(Root.type):
            new = _parse(Root, document)
            self._root.verify_delegate(Root.type, new.signed_bytes, new.signatures)
            new.signed.verify_delegate(Root.type, new.signed_bytes, new.signatures)
        _require_same(Root.type, new.signed.version, self._root.version + 1)
        self._root = new.signed

    def take_timestamp(self, document: bytes) -> bool:
        """False: of the version that is here already, which stays. One that has expired is taken,
        so that nothing older is: ask `require_timestamp`."""
        assert self._snapshot is None, "the timestamp comes before the snapshot"
        self._require_current(Root.type, self._root)
        with _in_words(Timestamp.type):
            new = self._verified(Timestamp, document, self._root, Timestamp.type)
        old = self._timestamp
        if old is not None:
            _require_no_less(Timestamp.type, new.version, old.version)
            if new.version == old.version:
                return False
            _require_no_less("snapshot", new.snapshot_meta.version, old.snapshot_meta.version)
        self._timestamp = new
        return True

    def require_timestamp(self) -> None:
        if self._timestamp is None:
            raise MetadataError("timestamp: there is none")
        self._require_current(Timestamp.type, self._timestamp)

    def take_snapshot(self, document: bytes, was_trusted: bool = False) -> None:
        """`was_trusted`: kept from an earlier refresh, to be compared with; one that has expired or
        is not the timestamp's is taken too: ask `require_snapshot`."""
        assert not self._targets, "the snapshot comes before targets"
        self.require_timestamp()
        with _in_words(Snapshot.type):
            if not was_trusted:
                self.snapshot_wanted.verify_length_and_hashes(document)
            new = self._verified(Snapshot, document, self._root, Snapshot.type)
        for name, old in self._snapshot.meta.items() if self._snapshot is not None else ():
            if name not in new.meta:
                raise MetadataError(f"snapshot: it lists {name} no more")
            _require_no_less(f"snapshot: {name}", new.meta[name].version, old.version)
        self._snapshot = new

    def require_snapshot(self) -> None:
        if self._snapshot is None:
            raise MetadataError("snapshot: there is none")
        self._require_current(Snapshot.type, self._snapshot)
        _require_same(Snapshot.type, self._snapshot.version, self.snapshot_wanted.version)

    def targets_wanted(self, role: str) -> MetaFile:
        """What the snapshot says of a role."""
        assert self._snapshot is not None
        wanted = self._snapshot.meta.get(f"{role}.json")
        if wanted is None:
            raise MetadataError(f"{role}: the snapshot does not list it")
        return wanted

    def take_targets(self, document: bytes, path: Path) -> Targets:
        """The last role of `path`, verified against the one before it, which is here."""
        self.require_snapshot()
        role, wanted = path[-1], self.targets_wanted(path[-1])
        delegator = self._root if path == TOP else self._targets[path[:-1]]
        with _in_words(role):
            wanted.verify_length_and_hashes(document)
            new = self._verified(Targets, document, delegator, role)
        _require_same(role, new.version, wanted.version)
        self._require_current(role, new)
        self._targets[path] = new
        return new

    def targets(self, path: Path) -> Targets | None:
        """As verified on this very path; None: not yet."""
        return self._targets.get(path)

    @staticmethod
    def _verified(
        kind: type[Document], document: bytes, delegator: Root | Targets, role: str
    ) -> Document:
        parsed = _parse(kind, document)
        delegator.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
        return parsed.signed

    def _require_current(self, role: str, signed: Root | Timestamp | Snapshot | Targets) -> None:
        if signed.is_expired(self._now):
            raise MetadataExpiredError(
                f"{role}: it expired on {signed.expires:%Y-%m-%d %H:%M} UTC, says this device's "
                f"clock, which stands at {self._now:%Y-%m-%d %H:%M}: sign it anew in the "
                "controller, or set the clock"
            )


def _parse(kind: type[Document], document: bytes) -> Metadata[Document]:
    parsed: Metadata[Document] = Metadata.from_bytes(document)
    if parsed.signed.type != kind.type:
        raise RepositoryError(f"a document of type {parsed.signed.type}")
    return parsed


def _require_same(what: str, new: int, wanted: int) -> None:
    if new != wanted:
        raise MetadataError(f"{what}: version {new} in place of {wanted}")


def _require_no_less(what: str, new: int, old: int) -> None:
    if new < old:
        raise MetadataError(f"{what}: version {new} is older than {old}, which was seen already")


@contextmanager
def _in_words(role: str) -> Iterator[None]:
    """What tuf raises, as one error of ours; a document may make it raise nearly anything."""
    try:
        yield
    except DeserializationError as error:
        raise MetadataError(f"{role}: not a metadata document: {error.__cause__}") from error
    except (RepositoryError, ValueError, KeyError, TypeError) as error:
        raise MetadataError(f"{role}: {error}") from error
