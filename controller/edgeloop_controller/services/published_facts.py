"""What the registry has of a version, as what is signed is held against it."""

from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.trust.release_rules import Published, PublishedVersion


def published_facts(database: Database, registry: Registry) -> Published:
    def find(model: str, version: str) -> PublishedVersion | None:
        with database.reading() as session:
            row = versions.find(session, model, version)
        if row is None:
            return None
        return PublishedVersion(
            manifest_sha256=row.manifest_digest,
            manifest_size=row.manifest_size_bytes,
            artifact_sha256=row.artifact_digest,
            artifact_size=row.artifact_size_bytes,
            runtime=registry.manifest(row.manifest_digest).artifact.runtime,
        )

    return find
