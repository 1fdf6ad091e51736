"""The document of `edgeloop why`, and the names of situations: the core gives these very ones."""

from enum import StrEnum

from pydantic import Field

from edgeloop.documents.base import Document


class Concern(StrEnum):
    NONE = "none"
    WAITS = "waits"
    """It goes on by itself."""
    PERSON = "person"
    """It stays so until a person does something."""


class Situation(StrEnum):
    """Tables of when each holds are in the modules that give them."""

    NEVER_SEEN = "never_seen"
    BROKER_AWAY = "broker_away"
    OFFLINE = "offline"
    BEHIND = "behind"
    AHEAD = "ahead"
    HELD = "held"
    NO_SLOT = "no_slot"

    RUNS = "runs"
    RUNS_UNASSIGNED = "runs_unassigned"
    RUNNER_DOWN = "runner_down"
    EMPTY = "empty"
    NOT_TOLD = "not_told"
    NOT_BEGUN = "not_begun"
    INSTALLING = "installing"
    WAITING = "waiting"
    REFUSED = "refused"

    NO_PLACE = "no_place"
    INELIGIBLE = "ineligible"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    HELD_OUT = "held_out"
    HELD_BY_ROLLOUT = "held_by_rollout"
    ROLLOUT_QUEUED = "rollout_queued"
    ROLLOUT_IN_SHADOW = "rollout_in_shadow"
    ROLLOUT_UNSIGNED = "rollout_unsigned"
    ROLLOUT_UNAPPROVED = "rollout_unapproved"
    ROLLOUT_PAUSED = "rollout_paused"
    ROLLOUT_HALTED = "rollout_halted"
    ROLLOUT_ABORTED = "rollout_aborted"

    CHALLENGER = "challenger"
    CHALLENGER_REFUSED = "challenger_refused"
    DRIFT = "drift"


class ExplanationDocument(Document):
    situation: Situation = Field(description="a stable name, for programs")
    concern: Concern = Field(description="`person`: it stays so until a person does something")
    sentence: str
    cause: str
    remedy: str = Field(description="what a person can do; `nothing` where nothing is to be done")
    since: float | None


class SlotWhy(Document):
    slot: str
    should_run: str = Field(description="NAME@VERSION; empty: nothing is assigned")
    runs: str = Field(description="NAME@VERSION as it reported; empty: nothing")
    heard_at: float | None = Field(description="when it reported the slot last")
    explanations: list[ExplanationDocument]


class WhyDocument(Document):
    """What most wants a person stands first in each list."""

    device: str
    known: bool = Field(description="whether it ever said hello")
    online: bool
    last_seen_at: float | None
    explanations: list[ExplanationDocument] = Field(description="of the device as a whole")
    slots: list[SlotWhy]
