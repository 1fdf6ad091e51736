"""Why a device runs what it runs."""

from collections.abc import Iterable

from fastapi import APIRouter

from edgeloop.documents import why as shapes
from edgeloop_controller.api.context import Context
from edgeloop_controller.core.explanation import Explanation

router = APIRouter(prefix="/devices", tags=["devices"])


@router.get("/{device_id}/why")
def why(device_id: str, services: Context) -> shapes.WhyDocument:
    """200 for a device that was never seen, too: `known` is false, and why is explained."""
    told = services.explaining.of(device_id)
    return shapes.WhyDocument(
        device=device_id,
        known=told.facts.known,
        online=told.facts.online,
        last_seen_at=told.facts.last_seen_at,
        explanations=_explanations(told.account.device),
        slots=[
            shapes.SlotWhy(
                slot=slot.slot,
                should_run=slot.should_run,
                runs=slot.runs,
                heard_at=slot.heard_at,
                explanations=_explanations(slot.explanations),
            )
            for slot in told.account.slots
        ],
    )


def _explanations(found: Iterable[Explanation]) -> list[shapes.ExplanationDocument]:
    return [
        shapes.ExplanationDocument(
            situation=one.situation,
            concern=one.concern,
            sentence=one.sentence,
            cause=one.cause,
            remedy=one.remedy,
            since=one.since,
        )
        for one in found
    ]
