"""May this device install this version? What verified metadata lists, against what it surely knows.

Invariants: pure; nothing that came by MQTT or from the controller's other answers is believed
beyond what the two signed targets say; what may mend itself (not listed yet) waits, what
contradicts, is for somebody else or is too old is refused. The device's facts are its own: never
labels that were sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_agent.core.snapshot import CommittedRelease
from edgeloop_protocol.device_facts import Facts
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.messages import Offer
from edgeloop_protocol.signed_release import (
    SHA256,
    Part,
    SignedRelease,
    may_install,
    release_of_target,
    rollback_floor,
    target_name,
)

RELEASES_MAX: Final = 64
"""Models whose highest release a slot remembers; the one committed longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Target:
    """As verified metadata lists it: `custom` is signed, and not looked at yet."""

    length_bytes: int
    hashes: Mapping[str, str]
    custom: Mapping[str, Any] | None


Listed = Mapping[str, Target]
"""By target name; what is not listed is not in it."""


@dataclass(frozen=True, slots=True)
class Accepted:
    release: SignedRelease


@dataclass(frozen=True, slots=True)
class Refused:
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class WaitFor:
    why: str


Verdict = Accepted | Refused | WaitFor


def names_to_look_up(offer: Offer, highest: CommittedRelease | None) -> tuple[str, ...]:
    """The targets that `judge` needs."""
    names = [_name(offer, "manifest"), _name(offer, "artifact")]
    if highest is not None:
        names.append(target_name(highest.model, highest.version, "manifest"))
    return tuple(dict.fromkeys(names))


def judge(
    offer: Offer, slot: str, listed: Listed, device: Facts, highest: CommittedRelease | None
) -> Verdict:
    """`highest`: that this slot ever committed of this model."""
    try:
        releases = [_release(listed, _name(offer, part)) for part in ("manifest", "artifact")]
    except TrustError as error:
        return Refused("not signed as a release", str(error))
    release = releases[0]
    if release is None or releases[1] is None:
        return WaitFor(f"not signed: {offer.name}@{offer.version} is not in the verified metadata")
    if releases[1] != release:
        return Refused("not signed as a release", "manifest and artifact are of two releases")
    contradiction = _contradiction(offer, listed)
    if contradiction:
        return Refused("not what was signed", contradiction)
    stranger = _stranger(release, slot, device)
    if stranger:
        return Refused("not signed for this device", stranger)
    committed, highest_now = 0 if highest is None else highest.release, _of_highest(listed, highest)
    if not may_install(release, committed, highest_now):
        floor = rollback_floor(committed, highest_now)
        return Refused(
            "older than a rollback may go",
            f"release {release.release}; {committed} was committed here, and lets back no further "
            f"than {floor}: edgeloop trust allow-rollback {offer.name} --to {offer.version}",
        )
    return Accepted(release)


def contradicts(release: SignedRelease, runtime: str) -> str:
    """Why the release is not that of a manifest that asks for `runtime`; empty: it is."""
    if release.runtime == runtime:
        return ""
    return f"signed for the runtime {release.runtime}, and its manifest asks for {runtime}"


def highest_of(releases: tuple[CommittedRelease, ...], model: str) -> CommittedRelease | None:
    return next((it for it in releases if it.model == model), None)


def with_commit(
    releases: tuple[CommittedRelease, ...], offer: Offer, release: int
) -> tuple[CommittedRelease, ...]:
    """After a commit; the newest last. Going back takes nothing from the highest; 0: not signed."""
    if not release:
        return releases
    highest = highest_of(releases, offer.name)
    if highest is None or release > highest.release:
        highest = CommittedRelease(model=offer.name, version=offer.version, release=release)
    others = tuple(it for it in releases if it.model != offer.name)
    return (*others, highest)[-RELEASES_MAX:]


def _name(offer: Offer, part: Part) -> str:
    return target_name(offer.name, offer.version, part)


def _release(listed: Listed, name: str) -> SignedRelease | None:
    """Raises TrustError where the target does not say of itself what it is."""
    target = listed.get(name)
    if target is None:
        return None
    return release_of_target(name, target.length_bytes, target.hashes, target.custom)


def _of_highest(listed: Listed, highest: CommittedRelease | None) -> tuple[SignedRelease, ...]:
    """Of what was committed; empty: it is listed no more, or not as a release."""
    if highest is None:
        return ()
    try:
        release = _release(listed, target_name(highest.model, highest.version, "manifest"))
    except TrustError:
        return ()
    return () if release is None else (release,)


def _contradiction(offer: Offer, listed: Listed) -> str:
    manifest, artifact = listed[_name(offer, "manifest")], listed[_name(offer, "artifact")]
    signed = {
        "manifest's digest": (manifest.hashes[SHA256], offer.manifest_digest),
        "manifest's size": (manifest.length_bytes, offer.manifest_size_bytes),
        "artifact's digest": (artifact.hashes[SHA256], offer.artifact_digest),
        "artifact's size": (artifact.length_bytes, offer.artifact_size_bytes),
    }
    differing = [
        f"the {what} is {was} as signed, {is_now} as offered"
        for what, (was, is_now) in signed.items()
        if was != is_now
    ]
    return "; ".join(differing)


def _stranger(release: SignedRelease, slot: str, device: Facts) -> str:
    runtimes = [runtime.name for runtime in device.inventory.runtimes]
    if not release.is_for_slot(slot):
        return f"for the slots {', '.join(release.slots)}, not for {slot}"
    if release.runtime not in runtimes:
        return f"for the runtime {release.runtime}; here are {', '.join(runtimes) or 'none'}"
    if not release.is_for_device(device):
        return f"for devices with {release.selector}, which this one is not"
    return ""
