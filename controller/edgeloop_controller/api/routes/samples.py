"""The annotator's queue: sampled examples out, labels in."""

import math
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents import loop as shapes
from edgeloop.documents.base import ROW_ID_MAX, Page
from edgeloop_controller.api.context import Context, Services
from edgeloop_controller.api.version_refs import version_ref
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.services.evidence import label_name
from edgeloop_controller.services.labelling import GivenLabel
from edgeloop_controller.store import samples
from edgeloop_controller.store.tables import Label, Sample

router = APIRouter(tags=["samples"])


@router.get("/samples")
def list_samples(
    services: Context,
    unlabelled: Annotated[bool, Query(description="only those that wait for a label")] = False,
    device_id: str | None = None,
    after: Annotated[int, Query(ge=0, le=ROW_ID_MAX)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[shapes.SampleDocument]:
    """In the order in which they came."""
    with services.database.reading() as session:
        rows = samples.page(session, after, limit, unlabelled, device_id)
        items = [_document(session, services, sample, label) for sample, label in rows]
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.post("/labels")
def put_labels(body: shapes.LabelsGiven, services: Context) -> shapes.LabelsStored:
    """All or none. The last label given to a sample counts."""
    given = [GivenLabel(label.sample_id, label.label) for label in body.labels]
    return shapes.LabelsStored(stored=services.labelling.put(given, body.annotator))


def _document(
    session: Session, services: Services, sample: Sample, label: Label | None
) -> shapes.SampleDocument:
    return shapes.SampleDocument(
        id=sample.id,
        device_id=sample.device_id,
        slot=sample.slot,
        version=version_ref(session, sample.manifest_digest),
        reference=sample.reference,
        received_at=sample.received_at,
        device_taken_at=sample.device_taken_at,
        features=[
            None if math.isnan(value) else value for value in samples.features_of(sample).tolist()
        ],
        prediction=sample.prediction,
        predicted_label=_predicted(services, sample),
        confidence=sample.confidence,
        shadow_version=version_ref(session, sample.shadow_digest),
        shadow_prediction=sample.shadow_prediction,
        label=label.label if label else None,
        labelled_at=label.labelled_at if label else None,
    )


def _predicted(services: Services, sample: Sample) -> str | None:
    try:
        return label_name(services.registry.manifest(sample.manifest_digest), sample.prediction)
    except NotFoundError:
        return None
