"""A rollout's shadow phase: who runs the version as a challenger, and when the first wave may begin
(ADR 0028).

    phase      when                                                        becomes, with effects
    -          the rollout runs, its `starts_at` has come                  begun
    begun      it has places, devices are free                             challengers are given
    begun      every place shows what it must, or a person lets it go on   over; all are taken back
    begun      a gate breaks                                               over; halted; all back
    begun      `deadline_s` passed without enough evidence                 begun, and says so
    begun      the rollout is aborted, rolled back                         over; all are taken back

    device     when                                                        becomes
    -          chosen                                                      given
    given      reports that it refused the version                         refused; keeps its place
    given      offline, and another one is free                            taken back
    any        in quarantine, held out, matches no more, taken by another  it goes back
               rollout, or runs no other version any more
    taken back no fresh device is free, and it is                          given

Invariants: nobody is offered the version before the phase is over; never more than `devices` have
the challenger by it; who has a challenger of somebody else is not chosen; a paused rollout gives
nobody a challenger, and does not go on; once it is over nobody has one by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeloop_controller.core.gate_shadow import judge_shadow
from edgeloop_controller.core.rollout_types import (
    DeviceView,
    Effect,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    Verdict,
)
from edgeloop_controller.core.shadow_turn import (
    SHADOW_WAVE,
    ShadowTurn,
    ended,
    unable,
    unfree,
    without,
)
from edgeloop_controller.core.shadow_types import ShadowOutcome, ShadowSeen, ShadowState

__all__ = [
    "SHADOW_WAVE",
    "Advance",
    "advance",
    "asks_again_at",
    "ended",
    "is_ahead",
    "unable",
    "unfree",
    "without",
]


@dataclass(frozen=True)
class Advance:
    """What a turn of the phase comes to. `halted`: the sentence of the gate that broke; `waits`:
    what is missing, in words; `waits_until`: when time alone allows more."""

    state: ShadowState
    effects: tuple[Effect, ...]
    verdicts: tuple[Verdict, ...]
    halted: str = ""
    waits: str = ""
    waits_until: float | None = None

    @property
    def lets_waves_begin(self) -> bool:
        return self.state.ended_at is not None and not self.halted


def is_ahead(spec: RolloutSpec, state: RolloutState) -> bool:
    """Whether the first wave has to wait for it."""
    return spec.terms.shadow is not None and state.shadow.ended_at is None


def advance(
    spec: RolloutSpec,
    state: RolloutState,
    fit: Sequence[DeviceView],
    views: Mapping[str, DeviceView],
    seen: Sequence[ShadowSeen],
    now: float,
) -> Advance:
    """One turn of the phase of a running or paused rollout; calling it again with nothing new
    changes nothing. `fit`: devices that the rollout may offer to; `seen`: by the phase's devices.
    """
    assert spec.terms.shadow is not None  # who asks has asked `is_ahead`
    turn = ShadowTurn(spec, spec.terms.shadow, state, fit, seen, now)
    running = state.status is RolloutStatus.RUNNING
    starts_at = spec.terms.schedule.starts_at
    if turn.began_at is None and (not running or (starts_at is not None and now < starts_at)):
        waits = "the shadow phase waits for its start"
        return Advance(state.shadow, (), (), waits=waits, waits_until=starts_at)
    turn.read_reports()
    verdicts = judge_shadow(spec, turn.members, turn.seen, views)
    broken = next((verdict.sentence for verdict in verdicts if verdict.halted), "")
    waits = ""
    if broken:
        turn.end(broken, ShadowOutcome.BROKEN)
    elif running:
        turn.fill()
        waits = turn.go_on()
    return Advance(turn.result(), tuple(turn.effects), verdicts, broken, waits)


def asks_again_at(spec: RolloutSpec, state: RolloutState) -> tuple[float, ...]:
    """Times at which `advance` may say something new although nothing else has changed."""
    terms, shadow = spec.terms.shadow, state.shadow
    if terms is None or shadow.began_at is None or shadow.ended_at is not None:
        return ()
    given = [member.given_at for member in shadow.members.values()]
    soaked = (min(given) + terms.soak_s,) if given else ()
    return (shadow.began_at + terms.deadline_s, *soaked)
