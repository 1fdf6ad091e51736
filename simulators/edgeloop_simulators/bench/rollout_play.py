"""One rollout over one simulated fleet: `core.rollout.step`, with the evidence types that the
controller gives it, and a clock that jumps to whatever the engine could next see.

Invariants: everything follows from the seed; a gate never sees which kind the rollout is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edgeloop_controller.core.device_change import changes
from edgeloop_controller.core.rollout import (
    ComparedWindow,
    DeviceView,
    Evidence,
    LabelledPair,
    Look,
    Member,
    MemberPhase,
    OfferTo,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    RolloutTerms,
    ShadowSeen,
    asks_again_at,
    initial_state,
    step,
)
from edgeloop_controller.core.waves import entry_order, look_number, look_taken_at, parse_waves
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, Requirements, TensorSpec
from edgeloop_protocol.messages import (
    ChallengerReported,
    Inventory,
    Refusal,
    RuntimeInfo,
    SlotReported,
    VersionRef,
)
from edgeloop_simulators.bench.rollout_fleet import (
    AARCH64,
    ARCHITECTURES,
    KINDS,
    NAN_SHARE,
    SITES_MAX,
    Floats,
    Kind,
    SimulatedFleet,
)
from edgeloop_simulators.bench.rollout_models import World
from edgeloop_simulators.bench.rollout_shadow import Shadowing

WAVES: Final = "1,5%,25%,100%"
CRASH_AFTER_S: Final = 4.0
STEPS_MAX: Final = 1000

OLD: Final = VersionRef(name="watch", version="1.4", manifest_digest="1" * 64)
LABELS: Final = ("a", "b", "c", "d", "e", "f", "g")
MANIFEST: Final = Manifest(
    name="watch",
    version="1.5",
    artifact=Artifact(digest="a" * 64, size_bytes=10, opset=17),
    inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
    outputs=(TensorSpec(name="p", dtype="float32", shape=(None, len(LABELS))),),
    scores_output="p",
    features=(Feature(name="f", sensor="f"),),
    labels=LABELS,
    requires=Requirements(architectures=ARCHITECTURES),
)
TARGET: Final = MANIFEST.ref()
_ON_OLD: Final = {"main": SlotReported(slot="main", state=SlotState.COMMITTED, champion=OLD)}
_ON_TARGET: Final = {"main": SlotReported(slot="main", state=SlotState.COMMITTED, champion=TARGET)}
_RIGHT: Final = ((False, True), (True, False), (True, True), (False, False))
"""Of a labelled example: whether the new version was right, and the old one."""


@dataclass(frozen=True)
class Outcome:
    kind: Kind
    devices: int
    halted: bool
    gate: str
    sentence: str
    exposed: int
    """Devices that were ever offered the version."""
    wave: int
    seconds: float
    """From the first offer to the end."""
    steps: int


@dataclass(frozen=True)
class Seen:
    """What a gate of another kind may look at."""

    members: Mapping[str, Member]
    before: Floats
    """Of each that was offered the version: rows as `core.device_change` adds them up."""
    after: Floats
    windows: Sequence[ComparedWindow]
    pairs: Sequence[LabelledPair]


OtherGate = Callable[[Seen], str]
"""A gate to judge instead of the engine's: what it halts for, or the empty text."""


class Rollout:
    """One rollout of a version of that kind; `fleet`: how many devices, None: drawn."""

    def __init__(
        self,
        world: World,
        kind: Kind,
        seed: int,
        terms: RolloutTerms,
        other: OtherGate | None = None,
        fleet: int | None = None,
        waves: str = WAVES,
    ) -> None:
        self._rng = np.random.default_rng([KINDS.index(kind), seed])
        self._kind, self._terms, self._other = kind, terms, other
        self.fleet = SimulatedFleet(world, kind, self._rng, fleet)
        self._spec = RolloutSpec(seed, TARGET, MANIFEST, "main", "all", parse_waves(waves), terms)
        self._settles: dict[str, tuple[float, str]] = {}
        """Device → when it will have committed or rolled back, and why."""
        self._ids = [f"d{number}" for number in range(self.fleet.count)]
        self._row = {name: row for row, name in enumerate(self._ids)}
        self._views = self._make_views()
        order = entry_order(self._spec.id, list(self._views.values()))
        self._lot = np.array([self._row[view.id] for view in order])
        """Rows in the lot's order."""
        shadow = terms.shadow
        self._shadowing = (
            Shadowing(self.fleet, self._row, OLD, shadow.max_latency_ratio) if shadow else None
        )

    def _make_views(self) -> dict[str, DeviceView]:
        labels = [{"site": f"plant-{site}"} for site in range(SITES_MAX)]
        inventories = [
            Inventory(
                agent_version="1",
                architecture=architecture,
                python="3.11",
                runtimes=(RuntimeInfo(name="onnx", version="1.20", max_opset=21),),
                memory_bytes=1,
                disk_free_bytes=1,
                cpu_count=1,
            )
            for architecture in ARCHITECTURES
        ]
        places = zip(
            self._ids, self.fleet.site.tolist(), self.fleet.architecture.tolist(), strict=True
        )
        return {
            name: DeviceView(
                id=name,
                labels=labels[site],
                online=True,
                inventory=inventories[architecture],
                slots=_ON_OLD,
                has_seen_offer=True,
                assigned_digest=OLD.manifest_digest,
                busy_with=None,
            )
            for name, site, architecture in places
        }

    # ---- going through it -----------------------------------------------------------------------

    def run(self) -> Outcome:
        state, now = initial_state(), 0.0
        for number in range(1, STEPS_MAX + 1):
            evidence = replace(self._evidence(state, now), shadow=self._shadowed(now))
            result = step(self._spec, state, self._views, evidence, now)
            state = result.state
            for effect in result.effects:
                if isinstance(effect, OfferTo):
                    self._offer(effect.device_id, now)
            if self._shadowing is not None:
                self._shadowing.take(result, now)
            if state.status is not RolloutStatus.RUNNING:
                gate = next((v.gate for v in result.verdicts if v.halted), "")
                return self._outcome(state, gate, state.verdict, now, number)
            if self._other is not None:
                ended = self._other(self._seen(state, evidence, now))
                if ended:
                    return self._outcome(state, "other", ended, now, number)
            now = self._next(state, now)
            self._settle(state, now)
        raise RuntimeError(f"{self._kind} {self._spec.id}: no end in {STEPS_MAX} steps")

    def _outcome(
        self, state: RolloutState, gate: str, sentence: str, now: float, steps: int
    ) -> Outcome:
        halted = state.status is RolloutStatus.HALTED or gate == "other"
        exposed = int(np.isfinite(self.fleet.offered_at).sum())
        return Outcome(
            self._kind,
            self.fleet.count,
            halted,
            gate,
            sentence,
            exposed,
            state.wave + 1,
            now,
            steps,
        )

    def _next(self, state: RolloutState, now: float) -> float:
        """When the engine may say something new: a device settles, a look is due, a time is up."""
        times = [at for name, (at, _) in self._settles.items() if self._is_open(state, name)]
        if len(times) > 1:
            # The first that refuses is news; the commits are, when the last of them is there.
            refusals = [at for at, cause in self._settles.values() if cause and at > now]
            times = [max(times), *refusals]
        if self._shadowing is not None:
            times += self._shadowing.next_at()
        asked = asks_again_at(self._spec, state, now)
        if asked is not None:
            times.append(asked)
        if state.wave_started_at is not None:
            looked = look_number(state.wave_started_at, self._terms.soak_s, now)
            times.append(look_taken_at(state.wave_started_at, self._terms.soak_s, looked + 1))
        return min(at for at in times if at > now)

    def _is_open(self, state: RolloutState, name: str) -> bool:
        member = state.members.get(name)
        return member is not None and member.phase is MemberPhase.OFFERED

    def _offer(self, name: str, now: float) -> None:
        row = self._row[name]
        fleet = self.fleet
        fleet.offered_at[row] = now
        view = self._views[name]
        self._views[name] = replace(view, assigned_digest=TARGET.manifest_digest)
        probation = self._terms.probation
        installed = now + fleet.install_s[row]
        proven = installed + max(probation.min_s, probation.min_examples / fleet.rate[row])
        at, cause = proven, ""
        if self._kind == "crash" and fleet.architecture[row] == AARCH64:
            at, cause = installed + CRASH_AFTER_S, "crashed"
        elif self._kind == "nan":
            first = self._rng.geometric(NAN_SHARE)
            if first <= probation.min_examples:
                at, cause = installed + first / fleet.rate[row], "nan or inf"
        self._settles[name] = (at, cause)
        fleet.rolls_back[row] = bool(cause)

    def _settle(self, state: RolloutState, now: float) -> None:
        for name, (at, cause) in self._settles.items():
            if at > now or not self._is_open(state, name):
                continue
            slots: Mapping[str, SlotReported] = _ON_TARGET
            if cause:
                refusal = Refusal(version=TARGET, cause=cause)
                rolled_back = SlotReported(
                    slot="main", state=SlotState.ROLLED_BACK, champion=OLD, refused=refusal
                )
                slots = {"main": rolled_back}
            self._views[name] = replace(self._views[name], slots=slots)

    def _shadowed(self, now: float) -> Sequence[ShadowSeen]:
        if self._shadowing is None:
            return ()
        crashes = self._kind == "crash"
        if crashes:
            self._shadowing.refused(self._views, TARGET, now, self._report)
        return self._shadowing.seen(now, crashes)

    def _report(self, name: str, challenger: ChallengerReported) -> None:
        view = self._views[name]
        slot = view.slots["main"].model_copy(update={"challenger": challenger})
        self._views[name] = replace(view, slots={"main": slot})

    # ---- what the engine is told ----------------------------------------------------------------

    def _evidence(self, state: RolloutState, now: float) -> Evidence:
        rows = np.flatnonzero(np.isfinite(self.fleet.offered_at))
        if not len(rows):
            return Evidence()
        examples, counts = self.fleet.paired(rows, now)
        names = [self._ids[row] for row in rows.tolist()]
        windows = [
            ComparedWindow(name, OLD, count, min(differ, count))
            for name, count, differ in zip(
                names, examples.tolist(), counts[:, 0].astype(int).tolist(), strict=True
            )
            if count > 0
        ]
        pairs: list[LabelledPair] = []
        for name, numbers in zip(names, counts[:, 1:].astype(int).tolist(), strict=True):
            for (target, old), number in zip(_RIGHT, numbers, strict=True):
                if number:
                    pairs += [LabelledPair(name, target, old)] * number
        return Evidence(windows, pairs, self._look(state, now))

    def _look(self, state: RolloutState, now: float) -> Look | None:
        """The last look that was due, over the devices in the lot's order."""
        started, fleet, lot = state.wave_started_at, self.fleet, self._lot
        number = 0 if started is None else look_number(started, self._terms.soak_s, now)
        if started is None or number < 1 or not self._terms.control_group:
            return None
        at = look_taken_at(started, self._terms.soak_s, number)
        is_member = fleet.offered_at[lot] <= at
        return Look(
            wave=state.wave + 1,
            number=number,
            strata=[fleet.strata[row] for row in lot.tolist()],
            is_member=is_member,
            changes=changes(fleet.before(lot), fleet.after(lot, is_member, started, at)),
            old=(OLD,),
        )

    def _seen(self, state: RolloutState, evidence: Evidence, now: float) -> Seen:
        fleet = self.fleet
        rows = np.flatnonzero(np.isfinite(fleet.offered_at))
        everyone = np.ones(len(rows), dtype=bool)
        after = fleet.after(rows, everyone, 0.0, now)
        return Seen(state.members, fleet.before(rows), after, evidence.windows, evidence.pairs)
