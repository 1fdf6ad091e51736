"""TUF's workflow: which documents are asked for, in which order, and which are kept.

Invariants: what is kept was verified; nothing kept is believed unverified; at most
ROOT_ROTATIONS_MAX roots a refresh and DELEGATIONS_MAX roles a search, each no larger than what
lists it says, else than the limits below. Files and network are behind two ports.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, Protocol

from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp

from edgeloop_agent.errors import MetadataError, MetadataMissingError
from edgeloop_agent.trust.trusted_set import TOP, Path, TrustedSet

logger = logging.getLogger(__name__)

ROOT_ROTATIONS_MAX: Final = 256
"""A refresh; each is kept, so that the next refresh goes on from there."""
DELEGATIONS_MAX: Final = 32
ROOT_MAX_BYTES: Final = 512_000
TIMESTAMP_MAX_BYTES: Final = 16_384
SNAPSHOT_MAX_BYTES: Final = 2_000_000
TARGETS_MAX_BYTES: Final = 5_000_000


class MetadataKept(Protocol):
    def roots(self) -> Iterator[bytes]:
        """What may be trusted to begin with, the best first; at least the bootstrap."""

    def load(self, role: str) -> bytes | None:
        """None: none, or it cannot be read."""

    def save(self, role: str, document: bytes) -> None:
        """Return when a power cut leaves the old document or the new. Raises OSError."""


class MetadataSource(Protocol):
    def fetch(self, name: str, max_bytes: int) -> bytes:
        """`N.ROLE.json` and so on. Raises MetadataMissingError, MetadataError."""


class TufClient:
    """One refresh, then any number of searches in what it brought."""

    def __init__(self, kept: MetadataKept, source: MetadataSource, now: datetime) -> None:
        self._kept = kept
        self._source = source
        self._trusted = _trusted_root(kept, now)

    @property
    def root(self) -> Root:
        return self._trusted.root

    def refresh(self) -> None:
        """Root, timestamp, snapshot and the top targets. Raises MetadataError, OSError."""
        self._refresh_root()
        self._refresh_timestamp()
        self._refresh_snapshot()
        self._targets(TOP)

    def find(self, target: str) -> TargetFile | None:
        """In the first role that lists it, by depth first in the delegators' order."""
        to_visit, visited = [TOP], set[str]()
        while to_visit and len(visited) <= DELEGATIONS_MAX:
            path = to_visit.pop()
            if path[-1] in visited:
                continue
            visited.add(path[-1])
            targets = self._targets(path)
            if target in targets.targets:
                return targets.targets[target]
            children: list[Path] = []
            if targets.delegations is not None:
                for role, terminating in targets.delegations.get_roles_for_target(target):
                    children.append((*path, role))
                    if terminating:
                        to_visit = []
                        break
            to_visit += reversed(children)
        return None

    def _refresh_root(self) -> None:
        for _ in range(ROOT_ROTATIONS_MAX):
            number = self.root.version + 1
            try:
                document = self._source.fetch(f"{number}.{Root.type}.json", ROOT_MAX_BYTES)
            except MetadataMissingError:
                return
            self._trusted.take_root(document)
            self._kept.save(Root.type, document)

    def _refresh_timestamp(self) -> None:
        """The kept one first: nothing older than it is taken."""
        self._try_kept(Timestamp.type, self._trusted.take_timestamp)
        document = self._source.fetch(f"{Timestamp.type}.json", TIMESTAMP_MAX_BYTES)
        is_new = self._trusted.take_timestamp(document)
        self._trusted.require_timestamp()
        if is_new:
            self._kept.save(Timestamp.type, document)

    def _refresh_snapshot(self) -> None:
        self._try_kept(
            Snapshot.type, lambda kept: self._trusted.take_snapshot(kept, was_trusted=True)
        )
        try:
            self._trusted.require_snapshot()
        except MetadataError as error:
            logger.debug("the snapshot that is kept does not do: %s", error)
            wanted = self._trusted.snapshot_wanted
            document = self._fetch(
                Snapshot.type, wanted.version, wanted.length or SNAPSHOT_MAX_BYTES
            )
            self._trusted.take_snapshot(document)
            self._trusted.require_snapshot()
            self._kept.save(Snapshot.type, document)

    def _targets(self, path: Path) -> Targets:
        trusted = self._trusted.targets(path)
        if trusted is not None:
            return trusted
        role = path[-1]
        wanted = self._trusted.targets_wanted(role)
        self._try_kept(role, lambda kept: self._trusted.take_targets(kept, path))
        trusted = self._trusted.targets(path)
        if trusted is None:
            document = self._fetch(role, wanted.version, wanted.length or TARGETS_MAX_BYTES)
            trusted = self._trusted.take_targets(document, path)
            self._kept.save(role, document)
        return trusted

    def _try_kept(self, role: str, take: Callable[[bytes], object]) -> None:
        kept = self._kept.load(role)
        if kept is None:
            return
        try:
            take(kept)
        except MetadataError as error:
            logger.debug("the %s that is kept does not do: %s", role, error)

    def _fetch(self, role: str, version: int, max_bytes: int) -> bytes:
        number = f"{version}." if self.root.consistent_snapshot else ""
        return self._source.fetch(f"{number}{role}.json", max_bytes)


def _trusted_root(kept: MetadataKept, now: datetime) -> TrustedSet:
    """The kept root, else the bootstrap: one that a disk has spoilt is fetched again."""
    problem = MetadataError("root: there is none to begin with")
    for document in kept.roots():
        try:
            return TrustedSet(document, now)
        except MetadataError as error:
            logger.warning("a root cannot be used: %s", error)
            problem = error
    raise problem
