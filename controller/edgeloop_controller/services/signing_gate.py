"""Whether a version may be offered, by what is signed of it.

Invariant: while trust is not initialised everything may; afterwards only what is signed, for the
slot, by metadata that has not expired.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from edgeloop_controller.core.explained_facts import Unsigned
from edgeloop_controller.errors import ConflictError
from edgeloop_controller.services.trust import Trust
from edgeloop_controller.store import versions
from edgeloop_controller.store.tables import Version
from edgeloop_controller.store.versions import VersionRow
from edgeloop_controller.trust.metadata import Document, Standing, releases_of
from edgeloop_protocol.signed_release import SignedRelease

Found = Mapping[tuple[str, str], tuple[SignedRelease, str]]
"""Model and version → what is signed of it, and by which role."""


class SigningGate:
    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._found: tuple[Standing, Found] | None = None

    @property
    def is_on(self) -> bool:
        return self._trust.is_on

    def require(self, version: Version, slot: str) -> None:
        """Raises ConflictError that says what is to be signed."""
        problem = self.unsigned(version, slot)
        if problem is not None:
            raise ConflictError(str(problem), hint="docs/trust.md shows it step by step")

    def withheld(self, session: Session, manifest_digest: str, slot: str) -> Unsigned | None:
        """As `unsigned`, of a published version by its digest."""
        if not self.is_on:
            return None
        row = versions.row_by_digest(session, manifest_digest)
        return self.unsigned(row, slot) if row is not None else None

    def unsigned(self, version: Version | VersionRow, slot: str | None = None) -> Unsigned | None:
        """Why it may not be offered now; None: it may."""
        standing = self._trust.standing
        if standing is None:
            return None
        name = f"{version.name}@{version.version}"
        release, role = self._releases(standing).get((version.name, version.version), (None, ""))
        if release is None or release.manifest_sha256 != version.manifest_digest:
            return Unsigned(f"{name} is not signed", f"edgeloop trust sign {name} --key FILE")
        if slot is not None and not release.is_for_slot(slot):
            more = " ".join(f"--slot {one}" for one in (*release.slots, slot))
            return Unsigned(
                f"{name} is signed for slot {', '.join(release.slots)} only",
                f"edgeloop trust sign {name} {more} --key FILE",
            )
        return self._expired(standing, role)

    def _releases(self, standing: Standing) -> Found:
        found = self._found
        if found is None or found[0] is not standing:
            releases = {
                key: (release, role)
                for role, document in standing.roles.items()
                for key, release in releases_of(document).items()
            }
            found = self._found = standing, releases
        return found[1]

    def _expired(self, standing: Standing, role: str) -> Unsigned | None:
        now = self._trust.now()
        needed: list[Document[Any]] = [standing.root, standing.targets, standing.roles[role]]
        for document in needed:
            if document.expires <= now:
                when = f"{document.expires:%Y-%m-%d %H:%M} UTC"
                return Unsigned(
                    f"the signatures of {document.role} expired at {when}",
                    f"edgeloop trust renew {document.role} --key FILE",
                )
        return None
