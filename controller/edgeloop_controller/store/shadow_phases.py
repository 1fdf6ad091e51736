"""Shadow phases of rollouts: their state as a document, and the windows of their challengers.

Invariants: a phase's document has no more devices than its terms ask for and than were replaced; a
challenger's window is held against the champion's of the same device, boot and time.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from edgeloop_controller.core.shadow_types import (
    ShadowMember,
    ShadowOutcome,
    ShadowStage,
    ShadowState,
)
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import Rollout, ShadowWindow, Window, table_of

RECORDS_BETWEEN_MAX: Final = 256
"""Records of a device between a challenger's window and the champion's of the same time; more are
not looked through."""


def to_document(state: ShadowState) -> dict[str, Any]:
    """Empty for a phase that nothing has become of."""
    if state == ShadowState():
        return {}
    document = asdict(state)
    document["members"] = [asdict(member) for member in state.members.values()]
    return document


def from_document(document: dict[str, Any]) -> ShadowState:
    if not document:
        return ShadowState()
    members = [
        ShadowMember(**{**one, "stage": ShadowStage(one["stage"])}) for one in document["members"]
    ]
    outcome = document["outcome"]
    parsed = {
        "members": {one.device_id: one for one in members},
        "outcome": ShadowOutcome(outcome) if outcome else None,
    }
    return ShadowState(**{**document, **parsed})


_STATE: Final = Prepared(
    select(table_of(Rollout).c.shadow).where(table_of(Rollout).c.id == bindparam("rollout_id"))
)


def of_rollout(session: Session, rollout_id: int) -> ShadowState:
    return from_document(_STATE.scalar(session, rollout_id=rollout_id) or {})


class ChallengerWindow(NamedTuple):
    """`ended_at` by the device's clock; `windows`: how many are merged in it."""

    id: int
    device_id: str
    epoch: str
    sequence: int
    champion_digest: str
    examples: int
    errors: int
    nonfinite: int
    disagreements: int
    latency_p95_us: float
    ended_at: float
    windows: int


_SHADOW: Final = table_of(ShadowWindow).c
_COLUMNS: Final = (
    *("id", "device_id", "epoch", "sequence", "champion_digest"),
    *("count", "errors", "nonfinite", "disagreements", "latency_p95_us"),
)
_LAST: Final = Prepared(select(func.max(_SHADOW.id)))
_FRESH: Final = Prepared(
    select(
        *(_SHADOW[name] for name in _COLUMNS),
        _SHADOW.body["window"]["ended_at"].as_float(),
        func.coalesce(_SHADOW.body["window"]["windows"].as_integer(), 1),
    )
    .where(
        _SHADOW.manifest_digest == bindparam("digest"),
        _SHADOW.slot == bindparam("slot"),
        _SHADOW.id > bindparam("after"),
        _SHADOW.received_at >= bindparam("since"),
    )
    .order_by(_SHADOW.id)
)


def last_window_id(session: Session) -> int:
    """Of any challenger; 0: there is none."""
    return _LAST.scalar(session) or 0


def windows_after(
    session: Session, slot: str, manifest_digest: str, since: float, after_id: int
) -> Sequence[ChallengerWindow]:
    """Of a version in shadow on a slot, as they came."""
    found = _FRESH.rows(session, digest=manifest_digest, slot=slot, after=after_id, since=since)
    return [ChallengerWindow(*row) for row in found]


def champions_latency(session: Session, slot: str, one: ChallengerWindow) -> float | None:
    """The p95 in µs of the champion's window in which the challenger's ended; None: there is none
    yet."""
    query = (
        select(Window.latency_p95_us)
        .where(
            Window.device_id == one.device_id,
            Window.epoch == one.epoch,
            Window.sequence.between(
                one.sequence - RECORDS_BETWEEN_MAX, one.sequence + RECORDS_BETWEEN_MAX
            ),
            Window.slot == slot,
            Window.manifest_digest == one.champion_digest,
            Window.device_started_at < one.ended_at,
            Window.device_ended_at >= one.ended_at,
        )
        .order_by(Window.sequence)
        .limit(1)
    )
    return session.scalar(query)
