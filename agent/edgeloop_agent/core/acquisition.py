"""What the answer to a fetch means for the version that was fetched. Pure.

Invariants: what may mend itself (link, disk, memory, room) is waited for, for ever; bytes that are
not what a digest names are counted, and only so often; what no try will mend is refused at once;
where only what is signed may run, nothing is admitted without its release.
"""

from dataclasses import dataclass
from typing import Final

from edgeloop_agent.core import admission
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    FetchProblem,
    ManifestFetched,
)
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.messages import Offer

NOT_VERIFIED: Final = "not verified"


@dataclass(frozen=True, slots=True)
class Wait:
    """`corrupt_fetches`: how many there have been by now. `for_room`: of disk or memory."""

    why: str
    corrupt_fetches: int
    for_room: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Admitted:
    memory_max_bytes: int
    """As its manifest requires it; 0: it does not say."""
    release: int
    """As verified metadata lists it; 0: it was not looked up."""


@dataclass(frozen=True, slots=True)
class Fetched:
    pass


Outcome = Wait | Refuse | Admitted | Fetched


def outcome(
    event: ManifestFetched | ArtifactFetched | FetchFailed,
    offer: Offer,
    corrupt_fetches: int,
    settings: CoreSettings,
) -> Outcome:
    if isinstance(event, FetchFailed):
        return _of_failure(event, corrupt_fetches, settings.corrupt_fetches_max)
    if isinstance(event, ArtifactFetched):
        return Fetched()
    if settings.signed_only and not event.release:
        return Refuse(NOT_VERIFIED, "it was not looked up in verified metadata")
    verdict = admission.check(event.manifest, offer, event.inventory, event.artifact_on_disk)
    if verdict.admission is admission.Admission.WAIT:
        return Wait(verdict.cause, corrupt_fetches, for_room=True)
    if verdict.admission is admission.Admission.REFUSED:
        return Refuse(verdict.cause, verdict.detail)
    return Admitted(event.manifest.requires.memory_bytes, event.release)


def hinted_anew(verified: Offer, offered: Offer) -> Offer:
    """The same version offered again, where what it is was verified: only its patch may differ."""
    return verified.model_copy(update={"patch": offered.patch})


def _of_failure(event: FetchFailed, corrupt_fetches: int, corrupt_fetches_max: int) -> Outcome:
    if event.problem is FetchProblem.UNUSABLE:
        return Refuse("unusable manifest", event.detail)
    if event.problem is FetchProblem.UNTRUSTED:
        return Refuse(event.cause, event.detail)
    tries = corrupt_fetches + (event.problem is FetchProblem.CORRUPT)
    if tries >= corrupt_fetches_max:
        return Refuse("digest mismatch", f"{event.detail}, {tries} times")
    return Wait(event.detail, tries, event.for_room)
