"""Scores per scope, and alarms."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents import loop as shapes
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.version_refs import version_ref
from edgeloop_controller.core.drift import Finding
from edgeloop_controller.services.drift_watch import Look
from edgeloop_controller.store import drift
from edgeloop_controller.store.tables import DriftAlarm

router = APIRouter(tags=["drift"])


@router.get("/drift")
def show_drift(
    services: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> shapes.DriftDocument:
    """Scores are those of the last look; none yet after a start, or with too few examples."""
    with services.database.reading() as session:
        return shapes.DriftDocument(
            enabled=services.config.drift.enabled,
            scores=[
                _score(session, look, finding)
                for look in services.drift_watch.looks()
                for finding in look.findings
            ],
            alarms=[_alarm(session, row) for row in drift.latest(session, limit)],
        )


def _score(session: Session, look: Look, finding: Finding) -> shapes.ScopeScore:
    score = finding.score
    return shapes.ScopeScore(
        slot=look.watched.slot,
        version=version_ref(session, look.watched.manifest_digest),
        at=look.at,
        scope=finding.scope.value,
        key=finding.key,
        score=finding.value,
        threshold=finding.threshold,
        examples=score.examples,
        cause=finding.cause.value if finding.cause else None,
        sensor=finding.sensor,
        explanation=finding.explanation,
        predictions_psi=score.predictions_psi,
        confidence_psi=score.confidence_psi,
        features=[
            shapes.FeatureScore(name=f.name, sensor=f.sensor, psi=f.psi, ks=f.ks)
            for f in score.features
        ],
    )


def _alarm(session: Session, row: DriftAlarm) -> shapes.AlarmDocument:
    return shapes.AlarmDocument(
        id=row.id,
        slot=row.slot,
        version=version_ref(session, row.manifest_digest),
        scope=row.scope,
        key=row.key,
        cause=row.cause,
        sensor=row.sensor,
        score=row.score,
        threshold=row.threshold,
        raised_at=row.raised_at,
        cleared_at=row.cleared_at,
        evidence=row.evidence,
    )
