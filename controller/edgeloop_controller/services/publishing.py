"""Publishing: a model file and what was written about it become an immutable version.

Invariants: bytes are stored before the row that names them; a version's row never changes;
publishing the same again is no error and no change; publishing other bytes under a published
name is refused.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from edgeloop_controller.errors import VersionConflictError
from edgeloop_controller.packaging.package import load_draft, package, read_baseline
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import events, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Version
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.manifest import Manifest, ManifestDraft

PUBLISHED_EVENT: Final = "version.published"


@dataclass(frozen=True)
class Published:
    manifest: Manifest
    created: bool


class Publishing:
    def __init__(self, database: Database, registry: Registry, clock: Clock) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock

    def publish_files(
        self,
        model: bytes,
        name: str,
        version: str,
        draft_toml: str | None = None,
        baseline_parquet: bytes | None = None,
        origin: dict[str, Any] | None = None,
    ) -> Published:
        """`origin` is kept with the version: where it was found, such as `{"mlflow": …}`. Raises
        PackagingError or VersionConflictError."""
        self._refuse_other_bytes(model, name, version)
        draft = load_draft(draft_toml, "the manifest") if draft_toml else ManifestDraft()
        table = read_baseline(baseline_parquet, "the baseline") if baseline_parquet else None
        manifest = package(model, name, version, draft, table)
        return self.publish(model, manifest, origin=origin)

    def publish(
        self,
        model: bytes,
        manifest: Manifest,
        training_run_id: int | None = None,
        origin: dict[str, Any] | None = None,
    ) -> Published:
        """Store a packaged version. Raises VersionConflictError."""
        canonical = manifest.canonical()
        with self._database.reading() as session:
            row = versions.find(session, manifest.name, manifest.version)
        if row is not None:
            return self._published_before(row, manifest)
        self._registry.artifacts.put(model)
        digest = self._registry.artifacts.put(canonical)
        with self._database.writing() as session:
            row = versions.find(session, manifest.name, manifest.version)
            if row is not None:  # somebody was faster
                return self._published_before(row, manifest)
            self._add_row(session, digest, manifest, len(canonical), training_run_id)
            self._say_published(session, digest, manifest, origin)
        return Published(manifest, created=True)

    def _add_row(
        self,
        session: Session,
        digest: str,
        manifest: Manifest,
        manifest_size_bytes: int,
        training_run_id: int | None,
    ) -> None:
        session.add(
            Version(
                manifest_digest=digest,
                name=manifest.name,
                version=manifest.version,
                artifact_digest=manifest.artifact.digest,
                artifact_size_bytes=manifest.artifact.size_bytes,
                manifest_size_bytes=manifest_size_bytes,
                published_at=self._clock.wall(),
                training_run_id=training_run_id,
            )
        )

    def _say_published(
        self, session: Session, digest: str, manifest: Manifest, origin: dict[str, Any] | None
    ) -> None:
        subject = f"{manifest.name}@{manifest.version}"
        data = {"manifest_digest": digest, **(origin or {})}
        events.add(session, self._clock.wall(), PUBLISHED_EVENT, subject, data)

    def _refuse_other_bytes(self, model: bytes, name: str, version: str) -> None:
        """Early, so that a long check of the file is not run for nothing."""
        with self._database.reading() as session:
            row = versions.find(session, name, version)
        if row is not None and row.artifact_digest != hashlib.sha256(model).hexdigest():
            raise _conflict(name, version, "another model file")

    def _published_before(self, row: Version, manifest: Manifest) -> Published:
        before = self._registry.manifest(row.manifest_digest)
        if _comparable(before) != _comparable(manifest):
            kept, given = before.model_dump(), manifest.model_dump()
            differing = sorted(key for key in kept if kept[key] != given[key])
            what = (
                "another model file" if "artifact" in differing else f"other {', '.join(differing)}"
            )
            raise _conflict(row.name, row.version, what)
        return Published(before, created=False)


_SKETCHES: Final[dict[str, Any]] = {
    "baseline": {"features": {"__all__": {"sketch"}}, "confidence": {"sketch"}}
}


def _comparable(manifest: Manifest) -> str:
    """The manifest without its sketches: KLL compacts at random, so equal data differ there."""
    return manifest.model_dump_json(exclude=_SKETCHES)


def _conflict(name: str, version: str, what: str) -> VersionConflictError:
    return VersionConflictError(
        f"{name}@{version} is published already, with {what}",
        hint="versions are immutable: publish under the next version",
    )
