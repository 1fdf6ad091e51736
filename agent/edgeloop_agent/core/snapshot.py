"""What the journal holds: all that a device must still know after a power cut.

Invariants: frozen; everything not in here (runners, backoffs, what is being waited for) is rebuilt
at start. Unknown keys are ignored, so that an older agent can read a newer one's journal.
"""

from edgeloop_protocol.documents import Field
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.limits import SLOTS_MAX
from edgeloop_protocol.messages import (
    Challenger,
    Count,
    Name,
    Offer,
    Probation,
    Refusal,
    Wire,
)


class CommittedRelease(Wire):
    """The highest release of a model that a slot ever committed (core.trust)."""

    model: Name
    version: Name
    release: Count


class Candidate(Wire):
    """A version underway; both counters are journalled *before* the try that they count."""

    offer: Offer
    probation: Probation = Probation()
    attempts: Count = 0
    corrupt_fetches: Count = 0
    memory_max_bytes: Count = Field(
        default=0, description="its manifest's requires.memory_bytes; 0: no cap of its own"
    )
    boots_held: Count = Field(
        default=0,
        exclude_if=lambda value: not value,
        description="how often the agent booted while it waited for other slots",
    )
    release: Count = Field(
        default=0,
        exclude_if=lambda value: not value,
        description="as verified metadata lists it; 0: it was not looked up",
    )


class Challenge(Wire):
    """A challenger and how it stands; the counters as a candidate's."""

    challenger: Challenger
    state: ChallengeState = ChallengeState.WANTED
    attempts: Count = 0
    corrupt_fetches: Count = 0
    memory_max_bytes: Count = 0
    refused: Refusal | None = None
    release: Count = Field(default=0, exclude_if=lambda value: not value)


class SlotSnapshot(Wire):
    slot: Name
    state: SlotState = SlotState.IDLE
    champion: Offer | None = Field(
        default=None, description="with its sizes and digests: damaged files can be fetched again"
    )
    champion_memory_max_bytes: Count = Field(
        default=0, description="its manifest's requires.memory_bytes; 0: no cap of its own"
    )
    previous: Offer | None = None
    candidate: Candidate | None = None
    refused: Refusal | None = None
    barred_digest: str | None = Field(
        default=None, description="rolled back, and refused until another digest is offered"
    )
    challenge: Challenge | None = Field(default=None, exclude_if=lambda value: value is None)
    releases: tuple[CommittedRelease, ...] = Field(
        default=(), exclude_if=lambda value: not value, description="the newest commit last"
    )


class DeviceSnapshot(Wire):
    revision: Count = 0
    slots: tuple[SlotSnapshot, ...] = Field(default=(), max_length=SLOTS_MAX)
