"""Why a device runs what it runs: facts in, sentences with a cause and a remedy each out. Pure.

    of the device       when                                                     concern
    never_seen          it never said hello                                      person
    broker_away         the controller has no connection to the broker           person
    offline             it is not connected                                      waits
    behind              it has not reported the revision that was made for it    waits
    ahead               it reports a revision that was never made here           waits
    held                a state of its own keeps it from offers (`Hold`)         person
    no_slot             it reports no slot, and nothing is assigned              person

    of a slot           `core.slot_explanation`, `core.rollout_explanation`

Invariants: each explanation has a sentence, a cause and a remedy, none empty; what is uncertain (a
device that is offline may have moved on) is said as what was heard last; no clock times stand in
sentences: `since` carries them, for whoever shows them in a time zone.
"""

from collections.abc import Iterator

from edgeloop.documents.why import Concern, Situation
from edgeloop_controller.core.explained_facts import DeviceFacts, SlotFacts
from edgeloop_controller.core.explanation_types import (
    NOTHING_TO_DO,
    Account,
    Explanation,
    SlotAccount,
    span,
)
from edgeloop_controller.core.rollout_explanation import explain_rollouts
from edgeloop_controller.core.slot_explanation import explain_challenger, explain_drift, explain_run

__all__ = ["Account", "Concern", "Explanation", "Situation", "SlotAccount", "explain"]


def explain(facts: DeviceFacts, now: float) -> Account:
    """What most wants a person stands first, of the device and of each slot."""
    device = sorted(_of_device(facts, now), key=_urgency)
    slots = tuple(_of_slot(facts, slot, now) for slot in facts.slots) if facts.known else ()
    return Account(tuple(device), slots)


def _urgency(explanation: Explanation) -> int:
    return (Concern.PERSON, Concern.WAITS, Concern.NONE).index(explanation.concern)


def _of_slot(facts: DeviceFacts, slot: SlotFacts, now: float) -> SlotAccount:
    run = explain_run(facts, slot, now)
    found = [
        run,
        *explain_rollouts(facts, slot, run.situation, now),
        *explain_challenger(facts, slot),
        *explain_drift(slot),
    ]
    reported = slot.reported
    return SlotAccount(
        slot=slot.slot,
        should_run=slot.assigned.version if slot.assigned else "",
        runs=str(reported.champion) if reported and reported.champion else "",
        heard_at=slot.heard_at,
        explanations=tuple(sorted(found, key=_urgency)),
    )


def _of_device(facts: DeviceFacts, now: float) -> Iterator[Explanation]:
    if not facts.broker.connected:
        yield Explanation(
            Situation.BROKER_AWAY,
            Concern.PERSON,
            "The controller hears no device now: it has no connection to the broker at "
            f"{facts.broker.address}.",
            facts.broker.reason or "the broker does not answer",
            "start the broker, or mend [broker] in controller.toml; `edgeloop-agent doctor` on a "
            "device tests the same from there",
        )
    if not facts.known:
        yield _never_seen(facts)
        return
    if not facts.online:
        yield _offline(facts, now)
    if facts.revision_seen > facts.revision_desired:
        yield _ahead(facts)
    elif not facts.has_heard:
        yield _behind(facts)
    for hold in facts.holds:
        yield Explanation(
            Situation.HELD,
            Concern.PERSON,
            f"It is {hold.name}: it is offered nothing.",
            hold.cause,
            hold.remedy,
            hold.since,
        )
    if not facts.slots:
        yield Explanation(
            Situation.NO_SLOT,
            Concern.PERSON,
            "It has no slot, so there is nothing that it could run.",
            "its agent is configured with no [slots], and nothing was ever assigned to it",
            "add a slot to the agent's configuration and restart it",
        )


def _never_seen(facts: DeviceFacts) -> Explanation:
    if facts.telemetry_without_hello:
        return Explanation(
            Situation.NEVER_SEEN,
            Concern.WAITS,
            f"{facts.id} sends telemetry, but has never said hello.",
            "its hello was lost on the way; it is asked for another, again and again",
            f"wait a minute; if it stays so, restart its agent: the id {facts.id} must be the one "
            "in its configuration",
        )
    return Explanation(
        Situation.NEVER_SEEN,
        Concern.PERSON,
        f"No device {facts.id} has ever said hello to this controller.",
        "its agent does not run, reaches another broker, or has another device id",
        "compare the id with `edgeloop device list`; on the device run `edgeloop-agent doctor`; it "
        f"must reach the broker at {facts.broker.address}",
    )


def _offline(facts: DeviceFacts, now: float) -> Explanation:
    silent = f" for {span(now - facts.last_seen_at)}" if facts.last_seen_at is not None else ""
    return Explanation(
        Situation.OFFLINE,
        Concern.WAITS,
        f"It has been offline{silent}; what follows is what it said last. What it "
        "runs, it runs on.",
        facts.offline_why or "its connection ended",
        "check its power and its network, then `edgeloop-agent status` on it; when it is back it "
        "is told what it missed",
        facts.last_seen_at,
    )


def _behind(facts: DeviceFacts) -> Explanation:
    return Explanation(
        Situation.BEHIND,
        Concern.WAITS,
        f"It has not answered yet to what it is to run: revision {facts.revision_desired} was made "
        f"for it, it reports {facts.revision_seen}.",
        "the message is on its way or was lost"
        if facts.online
        else "it was offline when the revision was made",
        "nothing: it is told again every 10 s while it is online"
        if facts.online
        else "nothing: it is told as soon as it is back",
    )


def _ahead(facts: DeviceFacts) -> Explanation:
    return Explanation(
        Situation.AHEAD,
        Concern.WAITS,
        f"It reports revision {facts.revision_seen}, and this controller only ever made "
        f"{facts.revision_desired}.",
        "the controller's database was restored from a backup, or two controllers share a broker",
        f"{NOTHING_TO_DO} after a restore: numbering goes on from the device's at its next hello; "
        "else stop the other controller",
    )
