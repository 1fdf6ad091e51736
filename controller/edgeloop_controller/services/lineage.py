"""Where a version comes from, as one chain that a person can read backwards:
version, where it was found, training run, data window, drift alarm, devices, and so on from its
parent.

Invariants: every link carries its document and a sentence; the chain ends at a version that a
person published, or at LINEAGE_MAX_VERSIONS.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeloop_controller.core.drift import Scope
from edgeloop_controller.services.publishing import PUBLISHED_EVENT
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import events, versions
from edgeloop_controller.store.tables import DriftAlarm, TrainingRun, Version, Window
from edgeloop_protocol.manifest import Manifest

LINEAGE_MAX_VERSIONS: Final = 50
DEVICES_NAMED_MAX: Final = 10


@dataclass(frozen=True)
class Link:
    """`kind` is version, mlflow, training_run, data_window, drift_alarm or devices."""

    kind: str
    text: str
    document: dict[str, Any]


def trace(session: Session, registry: Registry, name: str, version: str) -> list[Link]:
    """The chain, newest first. Raises NotFoundError."""
    links: list[Link] = []
    row: Version | None = versions.require(session, name, version)
    for _ in range(LINEAGE_MAX_VERSIONS):
        if row is None:
            break
        manifest = registry.manifest(row.manifest_digest)
        links.append(_version(row, manifest))
        links += _origin(session, row)
        run = session.get(TrainingRun, row.training_run_id) if row.training_run_id else None
        if run is not None:
            links += _training(session, run)
        parent = manifest.lineage.parent
        row = versions.by_digest(session, parent.manifest_digest) if parent else None
    return links


def _version(row: Version, manifest: Manifest) -> Link:
    text = f"{row.name}@{row.version}, published {_at(row.published_at)}"
    evaluation = manifest.evaluation
    if evaluation is not None:
        text += f"; accuracy {evaluation.accuracy:.3f} on {evaluation.examples} held-back examples"
        if evaluation.against is not None and evaluation.against_accuracy is not None:
            text += f", where {evaluation.against} had {evaluation.against_accuracy:.3f}"
    document = {
        "name": row.name,
        "version": row.version,
        "manifest_digest": row.manifest_digest,
        "published_at": row.published_at,
        "training_run_id": row.training_run_id,
        "note": manifest.lineage.note,
        "evaluation": evaluation.model_dump(mode="json") if evaluation else None,
    }
    return Link("version", text, document)


def _origin(session: Session, row: Version) -> list[Link]:
    """Of a version that came from MLflow; what its event keeps of that."""
    event = events.newest_of(session, PUBLISHED_EVENT, f"{row.name}@{row.version}")
    found = event.data.get("mlflow") if event is not None else None
    if not found:
        return []
    text = f"from MLflow's models:/{found['model']}/{found['version']}"
    text += f", found as @{found['alias']}" if found["alias"] else ""
    text += f", of MLflow's run {found['run_id']}" if found["run_id"] else ""
    return [Link("mlflow", f"{text}, at {found['tracking_uri']}", dict(found))]


def _training(session: Session, run: TrainingRun) -> list[Link]:
    started = _at(run.started_at or run.requested_at)
    text = f"made by training run {run.id} of policy {run.policy}, {started}, started by "
    text += f"{run.trigger}: {run.result.get('why', '')}".rstrip(": ")
    document = {
        "id": run.id,
        "policy": run.policy,
        "trigger": run.trigger,
        "status": run.status,
        "requested_at": run.requested_at,
        "ended_at": run.ended_at,
        "why": run.result.get("why", ""),
    }
    links = [Link("training_run", text, document)]
    data = run.result.get("data")
    if data:
        links.append(_data(data))
    alarm = session.get(DriftAlarm, run.drift_alarm_id) if run.drift_alarm_id else None
    if alarm is not None:
        links += [_alarm(alarm), _devices(session, alarm)]
    return links


def _data(data: dict[str, Any]) -> Link:
    text = f"from {data['samples']} labelled samples of {len(data['devices'])} devices"
    if data["from"] is not None:
        text += f", {_at(data['from'])} to {_at(data['to'])}"
    if data["untrusted_devices"]:
        text += f"; left out for a broken sensor: {', '.join(data['untrusted_devices'])}"
    return Link("data_window", text, data)


def _alarm(alarm: DriftAlarm) -> Link:
    text = (
        f"because drift alarm {alarm.id} ({alarm.cause}, {alarm.scope} {alarm.key}) was raised "
        f"{_at(alarm.raised_at)}: score {alarm.score:.2f} above {alarm.threshold:.2f}"
    )
    document = {
        "id": alarm.id,
        "slot": alarm.slot,
        "manifest_digest": alarm.manifest_digest,
        "scope": alarm.scope,
        "key": alarm.key,
        "cause": alarm.cause,
        "score": alarm.score,
        "threshold": alarm.threshold,
        "raised_at": alarm.raised_at,
        "cleared_at": alarm.cleared_at,
        "explanation": alarm.evidence.get("explanation", ""),
    }
    return Link("drift_alarm", text, document)


def _devices(session: Session, alarm: DriftAlarm) -> Link:
    """Those whose windows of the version had come when the alarm was raised."""
    query = (
        select(Window.device_id)
        .where(
            Window.manifest_digest == alarm.manifest_digest,
            Window.received_at <= alarm.raised_at,
            Window.slot == alarm.slot,
        )
        .distinct()
        .order_by(Window.device_id)
    )
    ids = [alarm.key] if alarm.scope == Scope.DEVICE else list(session.scalars(query))
    named = ", ".join(ids[:DEVICES_NAMED_MAX]) + (", …" if len(ids) > DEVICES_NAMED_MAX else "")
    return Link("devices", f"seen on {len(ids)} devices: {named}", {"ids": ids})


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
