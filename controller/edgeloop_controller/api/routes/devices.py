"""Devices as they last described themselves, and what is wanted of them."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents import fleet as documents
from edgeloop.documents.base import Items
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.version_refs import version_ref
from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.schedule import TIMEZONE_LABEL
from edgeloop_controller.errors import RefusedInputError
from edgeloop_controller.services.matching import matching_ids
from edgeloop_controller.services.timezones import is_known
from edgeloop_controller.store import assignments, devices, events, telemetry
from edgeloop_controller.store.tables import Assignment, Device, DeviceSlot
from edgeloop_protocol.device_facts import is_built_in
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.limits import NAME_MAX_CHARS, TEXT_MAX_CHARS
from edgeloop_protocol.messages import Inventory, SlotReported

router = APIRouter(prefix="/devices", tags=["devices"])


@router.get("")
def list_devices(
    services: Context,
    selector: Annotated[str, Query(description="`site=lab, !quarantine, model.watch<2.1` …")] = "",
) -> Items[documents.DeviceSummary]:
    """All, or those that the selector means now."""
    wanted = selectors.parse(selector) if selector else None
    with services.database.reading() as session:
        found = devices.every(session)
        if wanted is not None:
            meant = matching_ids(session, wanted)
            found = [device for device in found if device.id in meant]
        return Items(items=[_summary(session, device) for device in found])


@router.get("/{device_id}")
def show_device(device_id: str, services: Context) -> documents.DeviceDetail:
    with services.database.reading() as session:
        return _detail(session, devices.require(session, device_id))


@router.patch("/{device_id}/labels")
def set_labels(
    device_id: str, patch: documents.LabelsPatch, services: Context
) -> documents.DeviceDetail:
    """Labels set here win over the agent's own."""
    _check(patch.labels)
    with services.database.writing() as session:
        device = devices.require(session, device_id)
        kept = {key: value for key, value in device.labels.items() if key not in patch.labels}
        given = {key: value for key, value in patch.labels.items() if value is not None}
        device.labels = kept | given
        device.change = devices.next_change(session)
        events.add(
            session, services.clock.wall(), "device.labelled", device.id, {"labels": device.labels}
        )
        return _detail(session, device)


@router.put("/{device_id}/quarantine")
def set_quarantine(
    device_id: str, body: documents.QuarantineRequest, services: Context
) -> documents.DeviceDetail:
    """A device in quarantine runs on and is offered nothing."""
    with services.database.writing() as session:
        device = devices.require(session, device_id)
        device.quarantine = body.reason.strip()
        device.change = devices.next_change(session)
        kind = "device.quarantined" if device.quarantine else "device.released"
        events.add(session, services.clock.wall(), kind, device.id, {"reason": device.quarantine})
        return _detail(session, device)


@router.post("/{device_id}/diagnosis")
def diagnose(
    device_id: str, request: documents.DiagnosisRequest, services: Context
) -> documents.DiagnosisDocument:
    """Ask the device and wait for its answer; 504 when none comes in time."""
    answer = services.diagnosis.ask(
        device_id,
        request.asks,
        request.slot,
        request.lines,
        request.timeout_s,
        request.examples,
    )
    return documents.DiagnosisDocument(
        device=device_id,
        asks=request.asks,
        slot=request.slot,
        done=answer.done,
        text=answer.text,
    )


def _check(labels: dict[str, str | None]) -> None:
    for key, value in labels.items():
        if not key or len(key) > NAME_MAX_CHARS or not key[0].isalnum() or " " in key:
            raise RefusedInputError(
                f"label name {key!r} cannot be used", hint="letters, digits and _.+- , no spaces"
            )
        if value is not None and len(value) > TEXT_MAX_CHARS:
            raise RefusedInputError(f"the value of label {key!r} is above {TEXT_MAX_CHARS}")
        if is_built_in(key) and value is not None:
            raise RefusedInputError(
                f"`{key}` is built in: it is known of a device without a label",
                hint="see `edgeloop rollout start --help` for what selectors can ask",
            )
        if key == TIMEZONE_LABEL and value is not None and not is_known(value):
            raise RefusedInputError(
                f"{value!r} is no timezone that is known here", hint="for example Europe/Berlin"
            )


def _summary(session: Session, device: Device) -> documents.DeviceSummary:
    return documents.DeviceSummary(
        id=device.id,
        online=device.online,
        quarantine=device.quarantine,
        labels=devices.effective_labels(device),
        first_seen_at=device.first_seen_at,
        last_seen_at=device.last_seen_at,
        revision_desired=device.desired_revision,
        revision_seen=device.revision_seen,
        bytes_up=device.bytes_up,
        slots=_slots(session, device.id),
    )


def _detail(session: Session, device: Device) -> documents.DeviceDetail:
    summary = _summary(session, device)
    return documents.DeviceDetail(
        **{key: getattr(summary, key) for key in type(summary).model_fields},
        epoch=device.epoch,
        labels_agent=device.agent_labels,
        labels_set=device.labels,
        inventory=Inventory.model_validate(device.inventory),
        telemetry=[
            documents.TelemetryDocument(
                epoch=row.epoch,
                through=row.through,
                lost=row.lost,
                duplicates=row.duplicates,
                merged=row.merged,
                sketches_shed=row.sketches_shed,
                samples_dropped=row.samples_dropped,
                events_dropped=row.events_dropped,
            )
            for row in telemetry.cursors(session, device.id)
        ],
    )


def _slots(session: Session, device_id: str) -> list[documents.SlotDocument]:
    rows = {row.slot: row for row in devices.slots_of(session, device_id)}
    assigned = {row.slot: row for row in assignments.of_device(session, device_id)}
    return [
        _slot(session, name, rows.get(name), assigned.get(name))
        for name in sorted(set(rows) | set(assigned))
    ]


def _slot(
    session: Session, name: str, row: DeviceSlot | None, assigned: Assignment | None
) -> documents.SlotDocument:
    reported = (
        SlotReported.model_validate(row.reported)
        if row
        else SlotReported(slot=name, state=SlotState.IDLE)
    )
    return documents.SlotDocument(
        slot=name,
        state=reported.state.value,
        champion=reported.champion,
        previous=reported.previous,
        candidate=reported.candidate,
        assigned=version_ref(session, assigned.manifest_digest) if assigned else None,
        refused=reported.refused,
        waiting=reported.waiting,
        attempts=reported.attempts,
        runner_alive=reported.runner_alive,
        runner_restarts=reported.runner_restarts,
        challenger=reported.challenger,
        updated_at=row.updated_at if row else None,
    )
