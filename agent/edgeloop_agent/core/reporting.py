"""What a slot tells the controller of itself.

Invariant: the same object while nothing that it says has changed, so that asking costs little.
"""

from dataclasses import dataclass

from edgeloop_agent.core.runners import RunnerSet
from edgeloop_agent.core.snapshot import Challenge, SlotSnapshot
from edgeloop_protocol.messages import ChallengerReported, SlotReported


@dataclass(slots=True)
class Report:
    _of: tuple[SlotSnapshot, str, str, bool, int] | None = None
    _said: SlotReported | None = None

    def of(
        self, durable: SlotSnapshot, waiting: str, challenger_waiting: str, runners: RunnerSet
    ) -> SlotReported:
        waiting = waiting or runners.source_problem
        what = (durable, waiting, challenger_waiting, runners.alive, runners.restarts)
        if self._said is None or what != self._of:
            self._of, self._said = what, _slot_reported(*what)
        return self._said


def _slot_reported(
    durable: SlotSnapshot,
    waiting: str,
    challenger_waiting: str,
    runner_alive: bool,
    runner_restarts: int,
) -> SlotReported:
    candidate = durable.candidate
    return SlotReported(
        slot=durable.slot,
        state=durable.state,
        champion=durable.champion.ref if durable.champion else None,
        previous=durable.previous.ref if durable.previous else None,
        candidate=candidate.offer.ref if candidate else None,
        attempts=candidate.attempts if candidate else 0,
        refused=durable.refused,
        waiting=waiting,
        runner_alive=runner_alive,
        runner_restarts=runner_restarts,
        challenger=_challenger(durable.challenge, challenger_waiting),
    )


def _challenger(challenge: Challenge | None, waiting: str) -> ChallengerReported | None:
    if challenge is None:
        return None
    return ChallengerReported(
        version=challenge.challenger.offer.ref,
        state=challenge.state,
        attempts=challenge.attempts,
        cause=challenge.refused.cause if challenge.refused else "",
        detail=challenge.refused.detail if challenge.refused else "",
        waiting=waiting,
    )
