"""Retraining policies that were given over the API."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from edgeloop_controller.store.tables import RetrainingPolicy


def every(session: Session) -> Mapping[str, Mapping[str, Any]]:
    """Name → terms, in the order of names."""
    rows = session.scalars(select(RetrainingPolicy).order_by(RetrainingPolicy.name))
    return {row.name: row.terms for row in rows}


def terms_of(session: Session, name: str) -> Mapping[str, Any] | None:
    row = session.get(RetrainingPolicy, name)
    return row.terms if row is not None else None


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(RetrainingPolicy)) or 0


def save(session: Session, name: str, terms: Mapping[str, Any], now: float) -> None:
    session.merge(RetrainingPolicy(name=name, terms=dict(terms), changed_at=now))


def remove(session: Session, name: str) -> None:
    session.execute(delete(RetrainingPolicy).where(RetrainingPolicy.name == name))
