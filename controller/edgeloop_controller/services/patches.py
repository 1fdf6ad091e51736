"""Patches: made off the hot path for pairs of versions that a fleet is about to cross, offered to
devices that hold the base and can apply them.

Invariants: a patch is a hint and no part of the desired state: it is added as that is said, is no
reason to say it again, and nothing waits for one. Each pair is tried once, whatever comes of it;
all patches together take at most `max_bytes`, the oldest go first, and who was told of one that is
gone fetches the full file.
"""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from edgeloop_controller.artifacts import ArtifactStore
from edgeloop_controller.config import PatchesConfig
from edgeloop_controller.errors import ControllerError
from edgeloop_controller.packaging.deltas import Delta, make_deltas
from edgeloop_controller.store import devices, events, patches, rollouts, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import ArtifactPatch, Version
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Patch

logger = logging.getLogger(__name__)

BASES_MAX: Final = 4
"""Versions, those that most devices run, from which patches to one version are made."""

RECONSIDER_S: Final = 60.0
"""How often what runs in the fleet is counted for the same rollouts and versions."""

MakeDeltas = Callable[[Path, Path], list[Delta]]


class Pair(NamedTuple):
    """Digests of artifacts."""

    base: str
    new: str


class _Made(NamedTuple):
    format: str
    digest: str
    size_bytes: int


class Patches:
    """`look` is called by the scheduler, never twice at once; `hints` by whoever says something."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        clock: Clock,
        config: PatchesConfig,
        make: MakeDeltas = make_deltas,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._clock = clock
        self._config = config
        self._make = make
        self._made: dict[Pair, tuple[_Made, ...]] = {}
        """Replaced, never changed: other threads read it."""
        self._is_loaded = False
        self._loading = threading.Lock()
        self._considered: tuple[object, ...] = ()
        self._considered_at = float("-inf")

    def look(self) -> None:
        """Make the patches of one pair that is wanted, if there is one."""
        with self._database.reading() as session:
            self._load(session)
            wanted = self._wanted(session)
        if wanted is not None:
            self._make_pair(wanted)
            self._evict()

    def hints(self, session: Session, ids: Collection[str], targets: Collection[Any]) -> "Hints":
        """For devices that are to be told offers of `targets`, by artifact digest."""
        self._load(session)
        new = {pair.new for pair in self._made if self._made[pair]} & set(targets)
        if not new:
            return Hints({}, {}, {})
        holders = {
            (device_id, slot): (champion, formats)
            for device_id, slot, champion, formats in patches.applied_by(session, ids)
        }
        known = {champion for champion, _ in holders.values()}
        rows = [row for digest in known if (row := versions.by_digest(session, digest))]
        return Hints(self._made, holders, {r.manifest_digest: r.artifact_digest for r in rows})

    def _load(self, session: Session) -> None:
        with self._loading:
            if not self._is_loaded:
                self._made, self._is_loaded = self._read(session), True

    def _read(self, session: Session) -> dict[Pair, tuple[_Made, ...]]:
        found: dict[Pair, tuple[_Made, ...]] = {}
        for row in patches.every(session):
            pair = Pair(row.base_digest, row.artifact_digest)
            found.setdefault(pair, ())
            if row.digest is not None:
                found[pair] += (_Made(row.format, row.digest, row.size_bytes),)
        return found

    def _wanted(self, session: Session) -> tuple[Version, Version] | None:
        """(base, new) of a pair that was not tried."""
        all_versions = versions.every(session)
        active = [r.manifest_digest for r in rollouts.with_status(session, rollouts.UNFINISHED)]
        considered = (len(all_versions), tuple(active))
        now = self._clock.monotonic()
        if considered == self._considered and now - self._considered_at < RECONSIDER_S:
            return None
        newest = {row.name: row for row in all_versions}
        targets = {row.manifest_digest: row for row in newest.values()}
        targets |= {r.manifest_digest: r for r in all_versions if r.manifest_digest in active}
        pair = self._first_untried(session, targets.values())
        if pair is None or not patches.are_wanted(session):
            self._considered, self._considered_at = considered, now
            return None
        return pair

    def _first_untried(
        self, session: Session, targets: Collection[Version]
    ) -> tuple[Version, Version] | None:
        least, most = self._config.artifact_min_bytes, self._config.artifact_max_bytes
        targets = [row for row in targets if least <= row.artifact_size_bytes <= most]
        if not targets:
            return None
        running = devices.champions(session)
        bases = [row for digest in running if (row := versions.by_digest(session, digest))]
        bases.sort(key=lambda row: -running[row.manifest_digest])
        for target in targets:
            alike = [
                base
                for base in bases
                if base.name == target.name and base.artifact_digest != target.artifact_digest
            ]
            for base in alike[:BASES_MAX]:
                pair = Pair(base.artifact_digest, target.artifact_digest)
                if pair not in self._made and base.artifact_size_bytes <= most:
                    session.expunge(base)
                    session.expunge(target)
                    return base, target
        return None

    def _make_pair(self, versions_of_pair: tuple[Version, Version]) -> None:
        base, new = versions_of_pair
        pair = Pair(base.artifact_digest, new.artifact_digest)
        subject = f"{new.name}@{new.version}"
        problem = ""
        deltas: list[Delta] = []
        try:
            deltas = self._make(*map(self._artifacts.local_path, pair))
            made = tuple(
                _Made(d.format, self._artifacts.put(d.content), len(d.content)) for d in deltas
            )
        except (ControllerError, OSError) as error:
            problem, made = str(error), ()
            logger.warning("no patch from %s to %s: %s", base.version, subject, error)
        now = self._clock.wall()
        with self._database.writing() as session:
            session.add_all(_rows(pair, made, now))
            told: dict[str, Any] = {
                "base": f"{base.name}@{base.version}",
                "artifact_size_bytes": new.artifact_size_bytes,
                "sizes_bytes": {one.format: one.size_bytes for one in made},
            }
            events.add(
                session,
                now,
                "patch.failed" if problem else "patch.made",
                subject,
                told | ({"problem": problem} if problem else {}),
            )
        self._made = self._made | {pair: made}

    def _evict(self) -> None:
        """The oldest patches, until the rest fit."""
        with self._database.reading() as session:
            rows = [row for row in patches.every(session) if row.digest is not None]
            over_bytes = sum(row.size_bytes for row in rows) - self._config.max_bytes
            gone: list[str] = []
            for row in rows:
                if over_bytes <= 0:
                    break
                over_bytes -= row.size_bytes
                gone.append(str(row.digest))
        if not gone:
            return
        with self._database.writing() as session:
            patches.remove(session, gone)
        self._made = {
            pair: tuple(one for one in made if one.digest not in gone)
            for pair, made in self._made.items()
        }
        for digest in gone:
            self._artifacts.remove(digest)


class Hints(NamedTuple):
    """What there is to say to some devices."""

    made: dict[Pair, tuple[_Made, ...]]
    holders: dict[tuple[str, str], tuple[str, list[str]]]
    """(device, slot) → its champion's manifest digest, and the formats that the device applies."""
    artifacts: dict[str, str]
    """Manifest digest → artifact digest."""

    def patch(self, device_id: str, slot: str, artifact_digest: str) -> Patch | None:
        """The smallest that the device can apply to what it runs in the slot."""
        champion, formats = self.holders.get((device_id, slot), ("", []))
        base = self.artifacts.get(champion)
        if base is None:
            return None
        fit = [m for m in self.made.get(Pair(base, artifact_digest), ()) if m.format in formats]
        if not fit:
            return None
        best = min(fit, key=lambda one: one.size_bytes)
        return Patch(
            format=best.format,
            base_manifest_digest=champion,
            base_artifact_digest=base,
            digest=best.digest,
            size_bytes=best.size_bytes,
        )


def _rows(pair: Pair, made: Sequence[_Made], now: float) -> list[ArtifactPatch]:
    common = {"base_digest": pair.base, "artifact_digest": pair.new, "made_at": now}
    looked_at = ArtifactPatch(**common, format="", digest=None, size_bytes=0)
    return [
        looked_at,
        *(
            ArtifactPatch(**common, format=m.format, digest=m.digest, size_bytes=m.size_bytes)
            for m in made
        ),
    ]
