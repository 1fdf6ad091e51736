"""Starting, watching and stopping rollouts."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents import rollouts as shapes
from edgeloop.documents.base import Items
from edgeloop_controller.api.caller import Asking
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.rollout_terms import RolloutDetail, RolloutPlanRequest, RolloutStart
from edgeloop_controller.api.row_ids import RowId
from edgeloop_controller.api.version_refs import split_version
from edgeloop_controller.services.planning import Planned
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store import challengers, rollouts, shadow_phases, verdicts, versions
from edgeloop_controller.store.tables import Rollout

router = APIRouter(prefix="/rollouts", tags=["rollouts"])


@router.post("", status_code=201)
def start(body: RolloutStart, services: Context, caller: Asking) -> RolloutDetail:
    request = replace(_request(body), started_by=caller.name)
    return show(services.rollouts.start(request), services)


@router.post("/plan")
def plan(body: RolloutPlanRequest, services: Context) -> shapes.RolloutPlanDocument:
    """What it would do, to whom, and what it costs. Nothing is changed."""
    return _plan(services.planning.plan(_request(body), body.install_s))


@router.get("")
def list_rollouts(
    services: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Items[shapes.RolloutSummary]:
    """Newest first."""
    with services.database.reading() as session:
        rows = rollouts.every(session, limit)
        return Items(items=[_summary(session, row) for row in rows])


@router.get("/{rollout_id}")
def show(rollout_id: RowId, services: Context) -> RolloutDetail:
    with services.database.reading() as session:
        rollout = rollouts.require(session, rollout_id)
        members = rollouts.members_of(session, rollout_id).values()
        summary = _summary(session, rollout)
        said = verdicts.of_rollout(session, rollout_id)
        shadow = _shadow(session, rollout)
    return RolloutDetail(
        **{key: getattr(summary, key) for key in type(summary).model_fields},
        terms=rollouts.terms_of(rollout),
        approvals=[
            shapes.ApprovalDocument(wave=int(wave), **given)
            for wave, given in sorted(rollout.approvals.items(), key=lambda item: int(item[0]))
        ],
        devices=[
            shapes.MemberDocument(
                device_id=row.device_id,
                wave=row.wave + 1,
                phase=row.phase,
                offered_at=row.offered_at,
                settled_at=row.settled_at,
                before_digest=row.before_digest,
                cause=row.cause,
            )
            for row in sorted(members, key=lambda row: (row.wave, row.device_id))
        ],
        verdicts=[
            shapes.VerdictDocument(
                gate=row.gate,
                at=row.at,
                wave=row.wave + 1,
                halted=row.halted,
                sentence=row.sentence,
                looked=row.looked,
                evidence=row.evidence,
            )
            for row in said
        ],
        shadow=shadow,
    )


@router.post("/{rollout_id}/pause")
def pause(rollout_id: RowId, services: Context) -> RolloutDetail:
    """Nothing new is offered; what was offered stays."""
    services.rollouts.pause(rollout_id)
    return show(rollout_id, services)


@router.post("/{rollout_id}/resume")
def resume(rollout_id: RowId, services: Context) -> RolloutDetail:
    services.rollouts.resume(rollout_id)
    return show(rollout_id, services)


@router.post("/{rollout_id}/abort")
def abort(
    rollout_id: RowId, services: Context, body: shapes.AbortRequest | None = None
) -> RolloutDetail:
    """Devices that have not committed go back to what they ran."""
    services.rollouts.abort(rollout_id, (body or shapes.AbortRequest()).reason)
    return show(rollout_id, services)


@router.post("/{rollout_id}/approve")
def approve(
    rollout_id: RowId, body: shapes.ApprovalRequest, services: Context, caller: Asking
) -> RolloutDetail:
    """Let a wave begin that waits for a person: the sender, where the controller knows them."""
    by = caller.name if caller.authenticated else body.by
    services.rollouts.approve(rollout_id, body.wave, by, caller.authenticated)
    return show(rollout_id, services)


@router.post("/{rollout_id}/rollback")
def roll_back(rollout_id: RowId, body: shapes.RollBackRequest, services: Context) -> RolloutDetail:
    """Take the version from all that have it by this rollout, finished or not."""
    to = split_version(body.to) if body.to is not None else None
    services.rollouts.roll_back(rollout_id, to, body.reason)
    return show(rollout_id, services)


@router.post("/{rollout_id}/devices/{device_id}/hold")
def hold(
    rollout_id: RowId, device_id: str, body: shapes.ReasonRequest, services: Context
) -> RolloutDetail:
    """Keep a device out; what it has by this rollout goes back."""
    services.rollouts.hold(rollout_id, device_id, body.reason)
    return show(rollout_id, services)


@router.post("/{rollout_id}/devices/{device_id}/release")
def release(rollout_id: RowId, device_id: str, services: Context) -> RolloutDetail:
    """Let a device that was held out take part again."""
    services.rollouts.release(rollout_id, device_id)
    return show(rollout_id, services)


def _request(body: RolloutStart) -> RolloutRequest:
    return RolloutRequest(
        name=body.name,
        version=body.version,
        selector=body.selector,
        waves=tuple(body.waves),
        terms=body.terms,
        slot=body.slot,
        allow_empty=body.allow_empty,
        if_busy=body.if_busy,
    )


def _plan(planned: Planned) -> shapes.RolloutPlanDocument:
    found = planned.plan
    return shapes.RolloutPlanDocument(
        matching=found.matching,
        waves=[
            shapes.PlannedWaveDocument(
                wave=wave.number,
                devices=list(wave.devices),
                bytes=size_bytes,
                begins_at=wave.begins_at,
                ends_at=wave.ends_at,
            )
            for wave, size_bytes in zip(found.waves, planned.by_wave, strict=True)
        ],
        cannot=[
            shapes.CauseDocument(cause=one.cause, devices=list(one.devices)) for one in found.cannot
        ],
        later=list(found.later),
        has_it=list(found.has_it),
        offline=planned.offline,
        bytes=planned.bytes.total,
        bytes_without_patches=planned.bytes.full,
        patched=planned.bytes.patched,
        ends_at=found.ends_at,
        cut_short=found.is_cut_short,
        waits=found.waits,
        overlaps=list(planned.overlaps),
        unknown_timezones=list(planned.unknown_zones),
        shadow=_planned_shadow(planned),
        unsigned=planned.unsigned,
    )


def _planned_shadow(planned: Planned) -> shapes.PlannedShadowDocument | None:
    found = planned.plan.shadow
    if found is None:
        return None
    return shapes.PlannedShadowDocument(
        devices=list(found.devices),
        asked=found.asked,
        bytes=planned.shadow_bytes,
        begins_at=found.begins_at,
        ends_at=found.ends_at,
        cannot=[
            shapes.CauseDocument(cause=one.cause, devices=list(one.devices)) for one in found.cannot
        ],
    )


def _shadow(session: Session, rollout: Rollout) -> shapes.ShadowDocument | None:
    terms = rollouts.terms_of(rollout).shadow
    if terms is None:
        return None
    state = shadow_phases.from_document(rollout.shadow)
    challenger = challengers.of_rollout(session, rollout.id)
    seen = challengers.seen(session, challenger) if challenger is not None else {}
    return shapes.ShadowDocument(
        asked=terms.devices,
        outcome=state.outcome.value if state.outcome else None,
        sentence=state.said if state.outcome else rollout.verdict,
        overdue=state.is_overdue and state.outcome is None,
        began_at=state.began_at,
        ended_at=state.ended_at,
        challenger=challenger.id if challenger is not None else None,
        devices=[
            shapes.ShadowDeviceDocument(
                device_id=member.device_id,
                stage=member.stage.value,
                given_at=member.given_at,
                taken_back_at=member.taken_back_at,
                cause=member.cause,
                compared=one.count + one.errors + one.nonfinite if one else 0,
                disagreements=one.disagreements if one else 0,
            )
            for member in state.members.values()
            for one in [seen.get(member.device_id)]
        ],
    )


def _summary(session: Session, rollout: Rollout) -> shapes.RolloutSummary:
    version = versions.by_digest(session, rollout.manifest_digest)
    assert version is not None  # a foreign key
    phases = [row.phase for row in rollouts.members_of(session, rollout.id).values()]
    return shapes.RolloutSummary(
        id=rollout.id,
        name=version.name,
        version=version.version,
        manifest_digest=rollout.manifest_digest,
        slot=rollout.slot,
        selector=rollout.selector,
        waves=rollout.waves,
        status=rollout.status,
        wave=rollout.wave + 1,
        verdict=rollout.verdict,
        started_at=rollout.started_at,
        started_by=rollout.started_by,
        wave_started_at=rollout.wave_started_at,
        ended_at=rollout.ended_at,
        training_run_id=rollout.training_run_id,
        members=shapes.MemberCounts(
            **{phase: phases.count(phase) for phase in shapes.MemberCounts.model_fields}
        ),
    )
