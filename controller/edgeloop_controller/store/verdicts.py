"""What the gates of a rollout said last.

Invariants: one row for each gate of a rollout; it changes only when what the gate says changes, and
no more once the gate has halted the rollout.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeloop_controller.core.false_halts import GATES_WITH_SHADOW, SHADOW_GATES
from edgeloop_controller.core.rollout import Verdict
from edgeloop_controller.store.tables import Rollout, RolloutVerdict

NAMES_KEPT_MAX: Final = 100
"""Of a list in the evidence, such as the devices that failed; the counts beside it say how many
there are."""

SHADOW_WAVE: Final = -1
"""What was said before the first wave, which is 0."""


def of_rollout(session: Session, rollout_id: int) -> Sequence[RolloutVerdict]:
    """In the order in which the gates judge."""
    query = select(RolloutVerdict).where(RolloutVerdict.rollout_id == rollout_id)
    order: dict[str, int] = {gate: n for n, gate in enumerate(GATES_WITH_SHADOW)}
    return sorted(session.scalars(query), key=lambda row: order.get(row.gate, len(order)))


def save(session: Session, rollout: Rollout, verdicts: Sequence[Verdict], now: float) -> None:
    """Write those that say something else than before."""
    known = {row.gate: row for row in of_rollout(session, rollout.id)}
    for verdict in verdicts:
        evidence = _bounded(verdict.evidence)
        row = known.get(verdict.gate)
        if row is None:
            row = RolloutVerdict(rollout_id=rollout.id, gate=verdict.gate)
            session.add(row)
        elif (row.halted, row.sentence, row.looked, row.evidence) == (
            verdict.halted,
            verdict.sentence,
            verdict.looked,
            evidence,
        ):
            continue
        row.at = now
        row.wave = SHADOW_WAVE if verdict.gate in SHADOW_GATES else rollout.wave
        row.halted, row.sentence = verdict.halted, verdict.sentence
        row.looked, row.evidence = verdict.looked, evidence


def _bounded(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value[:NAMES_KEPT_MAX] if isinstance(value, list) else value
        for key, value in evidence.items()
    }
