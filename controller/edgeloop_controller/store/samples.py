"""Sampled examples and their labels."""

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import Label, Sample, table_of

SampleAndLabel = tuple[Sample, Label | None]


def features_of(sample: Sample) -> NDArray[np.float32]:
    return np.frombuffer(sample.features, dtype="<f4").astype(np.float32)


def is_whole(sample: Sample) -> bool:
    """The device keeps no feature of it private."""
    return bool(np.isfinite(features_of(sample)).all())


def page(
    session: Session, after: int, limit: int, unlabelled: bool, device_id: str | None = None
) -> Sequence[SampleAndLabel]:
    """Samples with a greater id, in order; `unlabelled`: only those that wait for a label."""
    query = select(Sample, Label).outerjoin(Label, Label.sample_id == Sample.id)
    query = query.where(Sample.id > after).order_by(Sample.id).limit(limit)
    if unlabelled:
        query = query.where(Label.sample_id.is_(None))
    if device_id is not None:
        query = query.where(Sample.device_id == device_id)
    return [(sample, label) for sample, label in session.execute(query)]


def labelled(
    session: Session, slot: str, digests: Collection[str]
) -> Sequence[tuple[Sample, Label]]:
    """Labelled samples of the given versions on a slot, in the order in which they came."""
    query = (
        select(Sample, Label)
        .join(Label, Label.sample_id == Sample.id)
        .where(Sample.slot == slot, Sample.manifest_digest.in_(list(digests)))
        .order_by(Sample.id)
    )
    return [(sample, label) for sample, label in session.execute(query)]


def count_labelled(
    session: Session, slot: str, digests: Collection[str], taken_since: float, given_since: float
) -> int:
    """Labels given since one time, of samples that came since another."""
    query = (
        select(func.count())
        .select_from(Label)
        .join(Sample, Sample.id == Label.sample_id)
        .where(
            Sample.slot == slot,
            Sample.manifest_digest.in_(list(digests)),
            Sample.received_at >= taken_since,
            Label.labelled_at >= given_since,
        )
    )
    return session.scalar(query) or 0


_LAST_LABEL_CHANGE: Final = Prepared(select(func.max(table_of(Label).c.change)))


def last_label_change(session: Session) -> int:
    return _LAST_LABEL_CHANGE.scalar(session) or 0


def shadowed(
    session: Session, slot: str, manifest_digest: str, since: float, labelled_after: int
) -> Sequence[tuple[Sample, Label]]:
    """Samples of a version that the version in shadow answered too, whose label's `change` is
    greater."""
    query = (
        select(Sample, Label)
        .join(Label, Label.sample_id == Sample.id)
        .where(
            Sample.manifest_digest == manifest_digest,
            Sample.received_at >= since,
            Sample.slot == slot,
            Sample.shadow_digest.is_not(None),
            Sample.shadow_prediction.is_not(None),
            Label.change > labelled_after,
        )
        .order_by(Sample.id)
    )
    return [(sample, label) for sample, label in session.execute(query)]


def put_label(
    session: Session, sample_id: int, label: str, annotator: str, now: float
) -> Sample | None:
    """The last label given counts. None: no such sample."""
    sample = session.get(Sample, sample_id)
    if sample is None:
        return None
    row = session.get(Label, sample_id)
    if row is None:
        row = Label(sample_id=sample_id)
        session.add(row)
    row.label = label
    row.annotator = annotator
    row.labelled_at = now
    row.change = last_label_change(session) + 1
    return sample
