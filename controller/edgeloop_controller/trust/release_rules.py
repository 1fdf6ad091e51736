"""Which releases may be signed, beside those that were.

What is signed is what is published, byte for byte; a version keeps its bytes; a counter is used
once within a model and a new one is above all before; a model's own role signs that model only.

Invariants: pure; raises nothing but TrustError.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuf.api.metadata import Targets

from edgeloop_controller.trust.metadata import TARGETS, Document, Standing, all_releases
from edgeloop_protocol.device_facts import MODEL_PREFIX, SLOT_PREFIX
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.selector import parse
from edgeloop_protocol.signed_release import PARTS, SignedRelease, target_name


@dataclass(frozen=True)
class PublishedVersion:
    """What the registry has of a version; sizes in bytes."""

    manifest_sha256: str
    manifest_size: int
    artifact_sha256: str
    artifact_size: int
    runtime: str


Published = Callable[[str, str], PublishedVersion | None]
"""By model and version."""


def check_releases(after: Standing, standing: Standing | None, published: Published) -> None:
    found = all_releases(after.roles.values())
    before = all_releases(standing.roles.values()) if standing else {}
    highest: dict[str, int] = {}
    for release in before.values():
        highest[release.model] = max(highest.get(release.model, 0), release.release)
    for role, document in after.roles.items():
        if role != TARGETS and any(path.split("/")[0] != role for path in document.signed.targets):
            raise TrustError(f"{role}: it signs another model than {role}")
    for key, release in found.items():
        if before.get(key) != release:
            _check_release(release, before.get(key), highest.get(release.model, 0))
            _check_published(release, _lengths(release, after.roles.values()), published)


def _check_release(release: SignedRelease, before: SignedRelease | None, highest: int) -> None:
    name = f"{release.model}@{release.version}"
    _check_recipients(name, release.selector)
    if before is None:
        if release.release <= highest:
            raise TrustError(
                f"{name} is signed as release {release.release}; {highest} was used already",
                "fetch what stands now and sign again",
            )
        return
    digests = (release.manifest_sha256, release.artifact_sha256)
    if digests != (before.manifest_sha256, before.artifact_sha256):
        raise TrustError(f"{name} was signed with other bytes: versions are immutable")
    if release.release != before.release and release.release <= highest:
        raise TrustError(
            f"{name} becomes release {release.release}; a counter that changes must be above "
            f"{highest}"
        )


def _check_recipients(name: str, selector: str) -> None:
    """A device is asked what it is and is labelled, never what it runs: that changes."""
    if not selector:
        return
    running = [
        term.key
        for term in parse(selector).terms
        if term.key.startswith((MODEL_PREFIX, SLOT_PREFIX))
    ]
    if running:
        raise TrustError(
            f"{name} is signed for devices by {running[0]}, which no device answers",
            "sign for what devices are: their id, architecture, runtimes, sensors or labels",
        )


def _check_published(
    release: SignedRelease, lengths: tuple[int, int], published: Published
) -> None:
    name = f"{release.model}@{release.version}"
    found = published(release.model, release.version)
    if found is None:
        raise TrustError(f"{name} is signed, and not published here", "publish it first")
    signed = PublishedVersion(
        release.manifest_sha256, lengths[0], release.artifact_sha256, lengths[1], release.runtime
    )
    if signed != found:
        raise TrustError(
            f"{name}: what is signed is not what is published: {_difference(signed, found)}",
            "look whose doing that is before you sign anything else",
        )


def _lengths(release: SignedRelease, roles: Iterable[Document[Targets]]) -> tuple[int, int]:
    """In bytes, of manifest and artifact."""
    names = [target_name(release.model, release.version, part) for part in PARTS]
    targets = next(one.signed.targets for one in roles if names[0] in one.signed.targets)
    return targets[names[0]].length, targets[names[1]].length


def _difference(signed: PublishedVersion, published: PublishedVersion) -> str:
    for field in PublishedVersion.__dataclass_fields__:
        ours, theirs = getattr(signed, field), getattr(published, field)
        if ours != theirs:
            return f"{field} {ours} is signed, {theirs} is published"
    return "nothing"
