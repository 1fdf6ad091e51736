"""Why a rollout has or has not brought its version to a device.

    situation         when, of a rollout that matches the device or has it as a member    concern
    ineligible        its inventory does not fit the version                              person
    failed            it refused the version, and has another offer since                 person
    withdrawn         its place was given away; the last wave has one for it              waits
    held_out          a person keeps it out of the rollout                                person
    held_by_rollout   another rollout has the slot of this device                         waits
    rollout_unsigned  it has a place, or will, but nobody signed the version              person
    rollout_queued    it starts when those before it are over                             waits
    rollout_in_shadow its shadow phase is ahead of the first wave                         waits
                      and it is overdue                                                   person
    rollout_unapproved  its next wave waits for a person to approve it                    person
    rollout_paused    the rollout is paused, and the device has not committed             person
    no_place          the wave has no place for it yet, or takes no offline device        waits
    rollout_halted    a gate halted it                                                    person
    rollout_aborted   a person ended it                                                   none

Invariants: a rollout whose version the device runs is not explained; of ended ones only the newest
is, unless one that is newer still goes on; an offer that the slot itself tells of (installing,
refused, not told) is not told twice.
"""

from collections.abc import Iterator

from edgeloop.documents.why import Concern, Situation
from edgeloop_controller.core.explained_facts import (
    ConcernedRollout,
    DeviceFacts,
    SlotFacts,
    Unsigned,
)
from edgeloop_controller.core.explanation_types import (
    NOTHING_TO_DO,
    Explanation,
    span,
)
from edgeloop_controller.core.rollout_types import Member, MemberPhase, RolloutStatus


def explain_rollouts(
    facts: DeviceFacts, slot: SlotFacts, run: Situation, now: float
) -> Iterator[Explanation]:
    """`run` is what the slot was found to do."""
    newer_active = False
    for rollout in slot.rollouts:
        if not rollout.is_over:
            newer_active = True
            if not _runs(slot, rollout):
                yield from _unfinished(facts, slot, rollout, run, now)
        else:
            if not newer_active and not _runs(slot, rollout):
                yield from _ended(facts, rollout, run)
            return


def _runs(slot: SlotFacts, rollout: ConcernedRollout) -> bool:
    champion = slot.reported.champion if slot.reported else None
    return champion is not None and champion.manifest_digest == rollout.target_digest


def _unfinished(
    facts: DeviceFacts, slot: SlotFacts, rollout: ConcernedRollout, run: Situation, now: float
) -> Iterator[Explanation]:
    member = rollout.member
    if member is not None and member.phase is MemberPhase.COMMITTED:
        return
    if rollout.status is RolloutStatus.QUEUED:
        yield _queued(rollout)
    if rollout.status is RolloutStatus.PAUSED:
        yield _paused(rollout, member)
    if member is not None and member.phase is not MemberPhase.OFFERED:
        yield from _settled(rollout, member, run)
    if member is None and rollout.status is RolloutStatus.RUNNING:
        yield _without_place(facts, slot, rollout, now)


def _ended(facts: DeviceFacts, rollout: ConcernedRollout, run: Situation) -> Iterator[Explanation]:
    member = rollout.member
    if rollout.status is RolloutStatus.HALTED:
        where = f"in wave {rollout.wave + 1} of {rollout.waves}; every device that had it went back"
        if rollout.is_in_shadow:
            where = "in its shadow phase; no device was offered it"
        yield Explanation(
            Situation.ROLLOUT_HALTED,
            Concern.PERSON,
            f"Rollout {rollout.id} of {rollout.target} was halted {where}.",
            rollout.verdict,
            f"the evidence: `edgeloop rollout show {rollout.id}`; a halted rollout does not go on: "
            "publish a version that mends this, and start another",
            rollout.ended_at,
        )
    elif rollout.status is RolloutStatus.ABORTED:
        yield Explanation(
            Situation.ROLLOUT_ABORTED,
            Concern.NONE,
            f"Rollout {rollout.id} of {rollout.target} was ended by hand before this device "
            "committed it.",
            rollout.verdict or "no reason was given",
            f"`edgeloop audit --subject rollout:{rollout.id}` says by whom; start another to go on",
            rollout.ended_at,
        )
    elif member is None and rollout.unsigned is not None:
        yield _unsigned(rollout, rollout.unsigned)
    elif member is None:
        yield Explanation(
            Situation.NO_PLACE,
            Concern.WAITS,
            f"Rollout {rollout.id} of {rollout.target} is done and still takes devices that come "
            "to match; this one is next.",
            "it came to match after the rollout had ended"
            if facts.online
            else "it was offline, and is offered the version all the same",
            NOTHING_TO_DO,
            rollout.ended_at,
        )
    elif member.phase is not MemberPhase.OFFERED:
        yield from _settled(rollout, member, run)


def _queued(rollout: ConcernedRollout) -> Explanation:
    return Explanation(
        Situation.ROLLOUT_QUEUED,
        Concern.WAITS,
        f"Rollout {rollout.id} of {rollout.target} is queued: it starts by itself.",
        "rollouts before it, for the same slot of the same devices, are not over",
        f"nothing; to see them: `edgeloop rollout list`; to end it: "
        f"`edgeloop rollout abort {rollout.id}`",
        rollout.started_at,
    )


def _paused(rollout: ConcernedRollout, member: Member | None) -> Explanation:
    where = f"wave {rollout.wave + 1} of {rollout.waves}"
    if rollout.is_in_shadow:
        where = "its shadow phase"
    offered = member is not None and member.phase is MemberPhase.OFFERED
    stands = "what it was offered stands" if offered else "it is offered nothing"
    return Explanation(
        Situation.ROLLOUT_PAUSED,
        Concern.PERSON,
        f"Rollout {rollout.id} of {rollout.target} is paused in {where}: {stands} until it goes "
        "on.",
        f"a person paused it: `edgeloop audit --subject rollout:{rollout.id}` says who",
        f"`edgeloop rollout resume {rollout.id}`, or `edgeloop rollout abort {rollout.id}`",
    )


def _settled(rollout: ConcernedRollout, member: Member, run: Situation) -> Iterator[Explanation]:
    """Of a member that is neither underway nor committed."""
    of = f"rollout {rollout.id} of {rollout.target}"
    if member.phase is MemberPhase.INELIGIBLE:
        yield Explanation(
            Situation.INELIGIBLE,
            Concern.PERSON,
            f"It cannot run {rollout.target}, so {of} passes it over.",
            member.cause,
            "publish a version that this device can run, or change the device; it is looked at "
            "again when its inventory changes",
        )
    elif member.phase is MemberPhase.HELD:
        yield Explanation(
            Situation.HELD_OUT,
            Concern.PERSON,
            f"It is held out of {of}: it is offered nothing by it.",
            member.cause or "a person held it out",
            f"to let it take part: `edgeloop rollout release {rollout.id} {member.device_id}`",
            member.settled_at,
        )
    elif member.phase is MemberPhase.FAILED and run is not Situation.REFUSED:
        yield Explanation(
            Situation.FAILED,
            Concern.PERSON,
            f"It failed in {of}, which does not offer it the version again.",
            member.cause,
            f"`edgeloop rollout show {rollout.id}`; to try it again: `edgeloop rollout start "
            f"{rollout.target} --to device={member.device_id}`",
            member.settled_at,
        )
    elif member.phase is MemberPhase.WITHDRAWN:
        yield Explanation(
            Situation.WITHDRAWN,
            Concern.WAITS,
            f"It was offered {rollout.target} by rollout {rollout.id}, and the offer was taken "
            "back; the last wave offers it again.",
            member.cause,
            NOTHING_TO_DO,
            member.settled_at,
        )


def _without_place(
    facts: DeviceFacts, slot: SlotFacts, rollout: ConcernedRollout, now: float
) -> Explanation:
    holder = next((r for r in slot.rollouts if r.id != rollout.id and r.holds), None)
    if holder is not None:
        return Explanation(
            Situation.HELD_BY_ROLLOUT,
            Concern.WAITS,
            f"Rollout {rollout.id} of {rollout.target} is for it too, and waits until rollout "
            f"{holder.id} of {holder.target} is done with it.",
            "two rollouts never share a slot of a device",
            f"nothing; or `edgeloop rollout abort {holder.id}`",
        )
    if rollout.unsigned is not None:
        return _unsigned(rollout, rollout.unsigned)
    if rollout.is_in_shadow:
        return _in_shadow(rollout)
    wave = rollout.waits_for_approval_of
    if wave is not None and "approval" in rollout.verdict:
        return Explanation(
            Situation.ROLLOUT_UNAPPROVED,
            Concern.PERSON,
            f"Rollout {rollout.id} of {rollout.target} has no place for it before wave {wave} of "
            f"{rollout.waves}, which a person has to approve.",
            rollout.verdict,
            f"`edgeloop rollout show {rollout.id}`, then `edgeloop rollout approve {rollout.id}`",
            rollout.started_at,
        )
    where = f"Rollout {rollout.id} of {rollout.target} is in wave {rollout.wave + 1} of "
    if not facts.online and not rollout.in_last_wave:
        sentence = f"{where}{rollout.waves}, and offers nothing to devices that are offline."
        cause = "before the last wave an offline device takes no place"
        remedy = "nothing: it comes in when it is back, or in the last wave"
    else:
        sentence = f"{where}{rollout.waves}, which has no place for it yet."
        cause = rollout.verdict or f"it was started {span(now - rollout.started_at)} ago"
        remedy = f"nothing: its turn comes; progress: `edgeloop rollout show {rollout.id}`"
    return Explanation(
        Situation.NO_PLACE, Concern.WAITS, sentence, cause, remedy, rollout.started_at
    )


def _unsigned(rollout: ConcernedRollout, unsigned: Unsigned) -> Explanation:
    return Explanation(
        Situation.ROLLOUT_UNSIGNED,
        Concern.PERSON,
        f"Rollout {rollout.id} of {rollout.target} offers nothing to further devices before it is "
        "signed for them.",
        unsigned.why,
        f"`{unsigned.remedy}`; it goes on by itself then",
        rollout.started_at,
    )


def _in_shadow(rollout: ConcernedRollout) -> Explanation:
    go_on = f"`edgeloop rollout approve {rollout.id}` or `edgeloop rollout abort {rollout.id}`"
    return Explanation(
        Situation.ROLLOUT_IN_SHADOW,
        Concern.PERSON if rollout.shadow_is_overdue else Concern.WAITS,
        f"Rollout {rollout.id} of {rollout.target} is in its shadow phase: no device is offered "
        "the version before its gates hold there.",
        rollout.verdict,
        f"`edgeloop rollout show {rollout.id}`, then {go_on}"
        if rollout.shadow_is_overdue
        else f"nothing; progress: `edgeloop rollout show {rollout.id}`",
        rollout.started_at,
    )
