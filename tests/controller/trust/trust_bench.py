"""Metadata and keys for tests: a publisher who signs releases of made-up models."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from edgeloop_controller.trust.acceptance import Around, Judged, judge
from edgeloop_controller.trust.editing import Draft, Expiries, Holders, first
from edgeloop_controller.trust.metadata import ONLINE, Standing
from edgeloop_controller.trust.release_rules import PublishedVersion
from edgeloop_controller.trust.signing import documents, sign
from edgeloop_protocol.signed_release import SignedRelease

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
LIVES = Expiries(root=timedelta(days=365), targets=timedelta(days=90))


def new_key() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


@dataclass
class Publisher:
    """Holds all keys, and what stands. `published`: what the registry has."""

    root: list[CryptoSigner] = field(default_factory=lambda: [new_key()])
    targets: list[CryptoSigner] = field(default_factory=lambda: [new_key()])
    online: dict[str, CryptoSigner] = field(
        default_factory=lambda: {role: new_key() for role in ONLINE}
    )
    published: dict[tuple[str, str], PublishedVersion] = field(default_factory=dict)
    standing: Standing | None = None
    now: datetime = NOW

    @property
    def around(self) -> Around:
        held = [signer.public_key.keyid for signer in self.online.values()]
        return Around(self.now, held, lambda model, version: self.published.get((model, version)))

    def first(self, root_threshold: int = 1) -> dict[str, Metadata[Any]]:
        return first(
            Holders([s.public_key for s in self.root], root_threshold),
            Holders([s.public_key for s in self.targets], 1),
            {role: signer.public_key for role, signer in self.online.items()},
            self.now,
            LIVES,
        )

    def initialised(self) -> "Publisher":
        changed = self.first()
        sign(changed, None, [*self.root, *self.targets])
        self.standing = judge(documents(changed), None, self.around).standing
        return self

    def draft(self) -> Draft:
        assert self.standing is not None
        return Draft(self.standing, self.now, LIVES)

    def release(self, version: str, number: int, **terms: Any) -> SignedRelease:
        """Published too, unless it is."""
        manifest, artifact = (f"{part} of {version}".encode() for part in ("manifest", "artifact"))
        digests = [hashlib.sha256(content).hexdigest() for content in (manifest, artifact)]
        model = terms.pop("model", "watch")
        self.published.setdefault(
            (model, version),
            PublishedVersion(digests[0], len(manifest), digests[1], len(artifact), "onnx"),
        )
        fields = {
            "rollback_floor": max(1, number - 1),
            "runtime": "onnx",
            "manifest_sha256": digests[0],
            "artifact_sha256": digests[1],
        }
        return SignedRelease(model=model, version=version, release=number, **(fields | terms))

    def sizes(self, release: SignedRelease) -> tuple[int, int]:
        published = self.published[release.model, release.version]
        return published.manifest_size, published.artifact_size

    def judged(self, changed: Mapping[str, Metadata[Any]], *signers: CryptoSigner) -> Judged:
        sign(changed, self.standing, signers)
        return judge(documents(changed), self.standing, self.around)

    def accepts(self, draft: Draft, *signers: CryptoSigner) -> Standing:
        judged = self.judged(draft.changed, *signers)
        assert not judged.lacking
        self.standing = judged.standing
        return judged.standing

    def signs(self, version: str, number: int, **terms: Any) -> Standing:
        """A release, by targets."""
        draft, release = self.draft(), self.release(version, number, **terms)
        draft.put(release, self.sizes(release))
        return self.accepts(draft, *self.targets)


@dataclass
class FleetPublisher:
    """Signs what a controller has published, over its services; holds a root and a targets key."""

    controller: Any
    root: CryptoSigner = field(default_factory=new_key)
    targets: CryptoSigner = field(default_factory=new_key)

    @property
    def trust(self) -> Any:
        return self.controller.parts.services.trust

    def first(self, root: Holders | None = None) -> dict[str, Metadata[Any]]:
        return first(
            root or Holders([self.root.public_key], 1),
            Holders([self.targets.public_key], 1),
            self.trust.make_keys(),
            self.trust.now(),
            LIVES,
        )

    def initialised(self) -> "FleetPublisher":
        assert self.proposes(self.first(), self.root, self.targets).accepted
        return self

    def draft(self) -> Draft:
        return Draft(self.trust.standing, self.trust.now(), LIVES)

    def proposes(self, changed: Mapping[str, Metadata[Any]], *signers: CryptoSigner) -> Any:
        sign(changed, self.trust.standing, signers)
        return self.trust.propose({role: one.to_dict() for role, one in changed.items()})

    def signed(self, version: Any, number: int, **terms: Any) -> Draft:
        """A draft that releases a version that is published."""
        draft = self.draft()
        found = self.trust._published(version.name, version.version)
        release = SignedRelease(
            model=version.name,
            version=version.version,
            release=number,
            rollback_floor=terms.pop("rollback_floor", max(1, number - 1)),
            runtime=found.runtime,
            manifest_sha256=found.manifest_sha256,
            artifact_sha256=found.artifact_sha256,
            **terms,
        )
        draft.put(release, (found.manifest_size, found.artifact_size))
        return draft

    def signs(self, version: Any, number: int, **terms: Any) -> None:
        assert self.proposes(self.signed(version, number, **terms).changed, self.targets).accepted
