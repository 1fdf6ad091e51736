"""`edgeloop trust sign`, and what else is signed of releases."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli.trust_options import Manner
from edgeloop_controller.cli.trust_session import Outcome, Session, at_work, keys_of
from edgeloop_controller.trust.differences import sentences
from edgeloop_controller.trust.fetching import (
    Version,
    fetch_version,
    fetch_waiting,
)
from edgeloop_controller.trust.home import Home
from edgeloop_controller.trust.metadata import ROOT, Document, Standing, all_releases, releases_of
from edgeloop_controller.trust.signing import may_sign, sign
from edgeloop_protocol.errors import TrustError, first_problem
from edgeloop_protocol.signed_release import SignedRelease

LABELS_SHOWN: Final = 8


@dataclass(frozen=True)
class Terms:
    """Of a release. None: as it was signed before, else what a first signature says: any slot, any
    device, one release back."""

    slots: tuple[str, ...] | None = None
    selector: str | None = None
    back_to: str | None = None
    no_rollback: bool = False
    release: int | None = None


def sign_version(
    name: str, version: str, terms: Terms, artifact: Path | None, manner: Manner
) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        found = fetch_version(session.client, name, version, artifact)
        release = _release(draft.releases(name), found, terms)
        draft.put(release, (found.manifest_size, found.artifact_size))
        return session.propose(draft.changed, draft.standing, manner.keys, _shown(found))


def allow_rollback(name: str, version: str, manner: Manner) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        if not draft.allow_rollback(name, version):
            raise TrustError(f"every release of {name} lets devices back to {version} already")
        return session.propose(draft.changed, draft.standing, manner.keys)


def withdraw(name: str, version: str, manner: Manner) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        draft.withdraw(name, version)
        return session.propose(draft.changed, draft.standing, manner.keys)


def countersign(artifact: Path | None, manner: Manner) -> list[Outcome]:
    """Every proposal that a key may sign something of; what it signs is hashed here first."""
    with at_work(manner) as session:
        initialised = bool(session.client.get("/trust")["initialised"])
        standing = session.draft().standing if initialised else None
        outcomes = []
        for proposal in fetch_waiting(session.client):
            if standing is None:
                _check_first_root(session.home, proposal)
            outcomes += _countersign(session, proposal, standing, artifact)
        if not outcomes:
            raise TrustError("no proposal waits for a signature of this key")
        return outcomes


def discard(role: str, manner: Manner) -> None:
    with at_work(manner) as session:
        session.client.delete(f"/trust/waiting/{quoted(role)}")
        output.say(f"the proposal of {role} waits no more")


def _countersign(
    session: Session,
    proposal: Mapping[str, Document[Any]],
    standing: Standing | None,
    artifact: Path | None,
) -> list[Outcome]:
    changed = {role: document.metadata for role, document in proposal.items()}
    signers = session.signers(session.manner.keys, keys_of(changed, standing))
    able = [
        signer
        for signer in signers
        if any(signer.public_key.keyid in may_sign(r, changed, standing) for r in changed)
    ]
    if not able:
        return []
    notes = _verified_notes(session, proposal, standing, artifact)
    session.confirm([*sentences(changed, standing), *notes])
    sign(changed, standing, able)
    return [session.upload(changed, standing)]


def _verified_notes(
    session: Session,
    proposal: Mapping[str, Document[Any]],
    standing: Standing | None,
    artifact: Path | None,
) -> list[str]:
    """Hashes each version that would be signed. Raises TrustError where it is another."""
    before = all_releases(standing.roles.values()) if standing else {}
    notes = []
    for role, document in proposal.items():
        for key, release in releases_of(document).items() if role != ROOT else ():
            if key in before and _same_bytes(before[key], release):
                continue
            found = fetch_version(session.client, *key, artifact)
            if (found.manifest_sha256, found.artifact_sha256) != (
                release.manifest_sha256,
                release.artifact_sha256,
            ):
                raise TrustError(
                    f"{'@'.join(key)} is proposed with other bytes than you have",
                    "ask who proposed it, and sign nothing before",
                )
            notes += _shown(found)
    return notes


def _same_bytes(one: SignedRelease, other: SignedRelease) -> bool:
    ours = one.manifest_sha256, one.artifact_sha256
    return ours == (other.manifest_sha256, other.artifact_sha256)


def _check_first_root(home: Home, proposal: Mapping[str, Document[Any]]) -> None:
    """The root that another person gave, and the one that waits, must be one."""
    if ROOT not in proposal or not home.root().says_the_same_as(proposal[ROOT]):
        raise TrustError(
            f"the root that waits is not the one in {home.root_path}",
            "somebody changed it on its way: sign nothing",
        )


def _release(releases: Mapping[str, SignedRelease], found: Version, terms: Terms) -> SignedRelease:
    """Raises TrustError for terms that cannot be signed."""
    manifest = found.manifest
    before = releases.get(manifest.version)
    highest = max((one.release for one in releases.values()), default=0)
    number = terms.release or (before.release if before else highest + 1)
    try:
        return SignedRelease(
            model=manifest.name,
            version=manifest.version,
            release=number,
            rollback_floor=_floor(releases, manifest.version, number, terms),
            slots=terms.slots if terms.slots is not None else (before.slots if before else ()),
            runtime=manifest.artifact.runtime,
            selector=terms.selector
            if terms.selector is not None
            else (before.selector if before else ""),
            manifest_sha256=found.manifest_sha256,
            artifact_sha256=found.artifact_sha256,
        )
    except ValidationError as error:
        raise TrustError(
            f"{manifest.name}@{manifest.version}: {first_problem(error)}",
            "see `edgeloop trust sign --help`",
        ) from error


def _floor(releases: Mapping[str, SignedRelease], version: str, number: int, terms: Terms) -> int:
    if terms.no_rollback:
        return number
    if terms.back_to is not None:
        if terms.back_to not in releases:
            raise TrustError(f"{terms.back_to} is not signed: devices cannot go back to it")
        return releases[terms.back_to].release
    before = releases.get(version)
    if before is not None and before.release == number:
        return before.rollback_floor
    older = [one.release for one in releases.values() if one.version != version]
    return max((release for release in older if release < number), default=number)


def _shown(found: Version) -> list[str]:
    manifest = found.manifest
    labels = ", ".join(manifest.labels[:LABELS_SHOWN])
    more = ", …" if len(manifest.labels) > LABELS_SHOWN else ""
    whose = "your file" if found.is_local else "as the controller gives it: compare it with yours"
    return [
        f"artifact of {manifest.name}@{manifest.version}: sha256 {found.artifact_sha256}, "
        f"{output.size(found.artifact_size)}, {whose}",
        f"manifest: sha256 {found.manifest_sha256}, as the controller made it: "
        f"{manifest.artifact.runtime}, {len(manifest.features)} features, labels {labels}{more}, "
        f"preprocessing {manifest.preprocessing.kind}",
    ]
