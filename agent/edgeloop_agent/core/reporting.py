"""What a slot tells the controller of itself.

Invariant: the same object while nothing that it says has changed, so that asking costs little.
"""

from dataclasses import dataclass

from edgeloop_agent.core.runners import RunnerSet
from edgeloop_agent.core.snapshot import SlotSnapshot
from edgeloop_protocol.messages import SlotReported


@dataclass(slots=True)
class Report:
    _of: tuple[SlotSnapshot, str, bool, int] | None = None
    _said: SlotReported | None = None

    def of(self, durable: SlotSnapshot, waiting: str, runners: RunnerSet) -> SlotReported:
        what = (durable, waiting or runners.source_problem, runners.alive, runners.restarts)
        if self._said is None or what != self._of:
            self._of, self._said = what, _slot_reported(*what)
        return self._said


def _slot_reported(
    durable: SlotSnapshot, waiting: str, runner_alive: bool, runner_restarts: int
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
    )
