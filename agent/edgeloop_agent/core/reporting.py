"""What a slot tells the controller of itself."""

from edgeloop_agent.core.runners import RunnerSet
from edgeloop_agent.core.snapshot import SlotSnapshot
from edgeloop_protocol.messages import SlotReported


def slot_reported(durable: SlotSnapshot, waiting: str, runners: RunnerSet) -> SlotReported:
    candidate = durable.candidate
    return SlotReported(
        slot=durable.slot,
        state=durable.state,
        champion=durable.champion,
        previous=durable.previous,
        candidate=candidate.offer.ref if candidate else None,
        attempts=candidate.attempts if candidate else 0,
        refused=durable.refused,
        waiting=waiting or runners.source_problem,
        runner_alive=runners.alive,
        runner_restarts=runners.restarts,
    )
