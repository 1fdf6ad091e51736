"""Times that a runner told by a clock that is not believed, moved to where the floor says (0018).

Invariants: a clock that is believed changes nothing and costs nothing; durations stay as told.
"""

from collections.abc import Callable

from edgeloop_agent.core.events import Event
from edgeloop_agent.ports import DownlinkMessage, Post, RunnerSaid
from edgeloop_protocol.messages import RecordBody, Sample, ShadowSummary, WindowSummary


def corrected(body: RecordBody, by_s: float) -> RecordBody:
    if not by_s:
        return body
    if isinstance(body, ShadowSummary):
        return body.model_copy(update={"window": corrected(body.window, by_s)})
    if isinstance(body, WindowSummary):
        times = {"started_at": body.started_at + by_s, "ended_at": body.ended_at + by_s}
    elif isinstance(body, Sample):
        times = {"taken_at": body.taken_at + by_s}
    else:
        times = {"at": body.at + by_s}
    return body.model_copy(update=times)


def correcting(post: Post, correction_s: Callable[[], float]) -> Post:
    """For those that tell what runners said."""

    def corrected_post(item: Event | RunnerSaid | DownlinkMessage) -> None:
        if isinstance(item, RunnerSaid):
            item = RunnerSaid(item.slot, corrected(item.body, correction_s()))
        post(item)

    return corrected_post
