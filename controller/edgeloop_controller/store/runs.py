"""Queries over training runs."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeloop_controller.core.retraining import RunStatus
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import TrainingRun

UNFINISHED: Final = (RunStatus.PENDING.value, RunStatus.RUNNING.value)


def require(session: Session, run_id: int) -> TrainingRun:
    run = session.get(TrainingRun, run_id)
    if run is None:
        raise NotFoundError(
            f"no training run {run_id}", hint="`edgeloop retrain list` shows those there are"
        )
    return run


def latest(session: Session, limit: int) -> Sequence[TrainingRun]:
    """Newest first."""
    return session.scalars(select(TrainingRun).order_by(TrainingRun.id.desc()).limit(limit)).all()


def with_status(session: Session, status: RunStatus) -> Sequence[TrainingRun]:
    """Oldest first."""
    query = select(TrainingRun).where(TrainingRun.status == status.value).order_by(TrainingRun.id)
    return session.scalars(query).all()


def last_of(session: Session, policy: str) -> TrainingRun | None:
    query = select(TrainingRun).where(TrainingRun.policy == policy).order_by(TrainingRun.id.desc())
    return session.scalars(query).first()
