"""One rollout over one simulated fleet: the real engine, real model outputs, simulated devices.

A device is a wearer's stream from a moment of its own, at a rate of its own, with a latency and a
memory of its own; a site draws its wearers unevenly; the hour makes all devices of a site slower;
at some sites the watch moves to the other wrist just when the rollout begins. The engine is
`core.rollout.step` with the evidence types that the controller gives it; between its steps nothing
happens that it could see.

Invariants: everything follows from the seed; a gate never sees which kind the rollout is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.core.device_change import AT, COLUMNS, changes
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
    asks_again_at,
    initial_state,
    step,
)
from edgeloop_controller.core.strata import Stratum
from edgeloop_controller.core.waves import entry_order, look_number, look_taken_at, parse_waves
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, Requirements, TensorSpec
from edgeloop_protocol.messages import Inventory, Refusal, RuntimeInfo, SlotReported, VersionRef
from edgeloop_simulators.bench.rollout_models import Streams, World, between

Floats = NDArray[np.float64]
Kind = Literal["good", "permuted", "weaker", "slow", "nan", "crash", "one_site"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

FLEETS: Final = (300, 400, 600, 1000, 2000)
FLEET_SHARES: Final = (0.3, 0.3, 0.2, 0.15, 0.05)
ARCHITECTURES: Final = ("x86_64", "aarch64")
SITES_MAX: Final = 6
WAVES: Final = "1,5%,25%,100%"
BEFORE_S: Final = 900.0
NAN_SHARE: Final = 0.02
SLOWER: Final = 2.0
CRASH_AFTER_S: Final = 4.0
STEPS_MAX: Final = 400

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
_PAIRS: Final = tuple(
    LabelledPair("", target_correct=target, shadow_correct=old)
    for target, old in ((False, True), (True, False), (True, True), (False, False))
)


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
    """What a gate of another kind may look at: see `Rollout.seen`."""

    members: Mapping[str, Member]
    rows: NDArray[np.int64]
    """Members that answered something, as rows of what follows."""
    before: Floats
    after: Floats
    windows: Sequence[ComparedWindow]
    pairs: Sequence[LabelledPair]


OtherGate = Callable[[Seen], str]
"""A gate to judge instead of the engine's: what it halts for, or the empty text."""


class Rollout:
    """One rollout of a version of that kind."""

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
        self._rng = rng = np.random.default_rng([KINDS.index(kind), seed])
        self._kind, self._terms, self._other = kind, terms, other
        self.count = count = fleet or int(rng.choice(FLEETS, p=FLEET_SHARES))
        sites = int(rng.integers(3, SITES_MAX + 1))
        self._site = rng.integers(0, sites, count)
        self._architecture = (rng.random(count) < rng.uniform(0.2, 0.5)).astype(np.int64)
        places = zip(self._architecture.tolist(), self._site.tolist(), strict=True)
        self._strata = [Stratum(ARCHITECTURES[a], f"plant-{s}") for a, s in places]
        self._bad_site = int(rng.integers(sites))
        self._draw_devices(world, sites)
        candidates: Sequence[Streams] = world.weaker if kind == "weaker" else world.good
        self._old, self._new = world.old, candidates[int(rng.integers(len(candidates)))]
        self._spec = RolloutSpec(seed, TARGET, MANIFEST, "main", "all", parse_waves(waves), terms)
        self._start = 0.0
        self._make_views()

    def _draw_devices(self, world: World, sites: int) -> None:
        rng, count = self._rng, self.count
        wearers = len(world.right)
        liked = rng.dirichlet(np.ones(wearers), size=sites)
        drawn = np.array([rng.choice(wearers, p=liked[site]) for site in self._site.tolist()])
        moved = (rng.random(sites) < 0.15)[self._site]
        self._wearer_before = world.right[drawn]
        self._wearer = np.where(moved, world.left[drawn], world.right[drawn])
        self._rate = rng.lognormal(0.0, 0.3, count)
        self._offset = rng.integers(0, 100_000, count)
        self._latency = rng.lognormal(math.log(5000), 0.4, count)
        self._hour = rng.normal(0.0, 0.15, sites)[self._site]
        """How much slower a site has become since before the rollout, as a log."""
        self._busy = np.where(rng.random(count) < 0.03, rng.exponential(0.5, count), 0.0)
        self._memory = rng.lognormal(math.log(60e6), 0.1, count)
        self._error_rate = rng.exponential(0.0005, count)
        self._crash_rate = rng.exponential(1 / (3 * 86_400), count)
        self._install_s = rng.lognormal(math.log(20), 0.5, count)

    def _make_views(self) -> None:
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
        self._ids = [f"d{number}" for number in range(self.count)]
        self._row = {name: row for row, name in enumerate(self._ids)}
        self._views = {
            name: DeviceView(
                name,
                labels[self._site[row]],
                True,
                inventories[self._architecture[row]],
                _ON_OLD,
                True,
                OLD.manifest_digest,
                None,
            )
            for row, name in enumerate(self._ids)
        }
        order = entry_order(self._spec.id, list(self._views.values()))
        self._lot = np.array([self._row[view.id] for view in order])
        """Rows in the lot's order."""

    # ---- going through it -----------------------------------------------------------------------

    def run(self) -> Outcome:
        state, now = initial_state(), self._start
        self._settles: dict[str, tuple[float, str]] = {}
        self._offered = np.full(self.count, np.inf)
        ended = ""
        for number in range(1, STEPS_MAX + 1):
            evidence = self._evidence(state, now)
            result = step(self._spec, state, self._views, evidence, now)
            state = result.state
            for effect in result.effects:
                if isinstance(effect, OfferTo):
                    self._offer(effect.device_id, now)
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
        exposed = int(np.isfinite(self._offered).sum())
        return Outcome(
            self._kind, self.count, halted, gate, sentence, exposed, state.wave + 1, now, steps
        )

    def _next(self, state: RolloutState, now: float) -> float:
        """When the engine may say something new: a device settles, a look is due, a time is up."""
        times = [at for name, (at, _) in self._settles.items() if self._is_open(state, name)]
        if len(times) > 1:
            # The first that refuses is news; the commits are, when the last of them is there.
            refusals = [at for at, cause in self._settles.values() if cause and at > now]
            times = [max(times), *refusals]
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
        self._offered[row] = now
        view = self._views[name]
        self._views[name] = replace(view, assigned_digest=TARGET.manifest_digest)
        probation = self._terms.probation
        installed = now + self._install_s[row]
        proven = installed + max(probation.min_s, probation.min_examples / self._rate[row])
        at, cause = proven, ""
        if self._kind == "crash" and self._architecture[row] == 1:
            at, cause = installed + CRASH_AFTER_S, "crashed"
        elif self._kind == "nan":
            first = self._rng.geometric(NAN_SHARE)
            if first <= probation.min_examples:
                at, cause = installed + first / self._rate[row], "nan or inf"
        self._settles[name] = (at, cause)

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

    # ---- what the devices tell ------------------------------------------------------------------

    def _examples(self, seconds: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How far each device's stream has come so long after the rollout began."""
        since = (seconds + BEFORE_S) * self._rate[rows]
        return self._offset[rows] + since.astype(np.int64)

    def _on_target(self, rows: NDArray[np.int64], now: float) -> Floats:
        """Since when each device has run the version; those that rolled it back do no more."""
        since = self._offered[rows] + self._install_s[rows]
        for position, row in enumerate(rows.tolist()):
            if self._settles[self._ids[row]][1]:
                since[position] = np.inf
        return np.minimum(since, now)

    def _evidence(self, state: RolloutState, now: float) -> Evidence:
        rows = np.flatnonzero(np.isfinite(self._offered))
        if not len(rows):
            return Evidence()
        start = self._examples(self._on_target(rows, now), rows)
        end = self._examples(np.full(len(rows), now), rows)
        counts = self._paired(rows, start, end)
        windows = [
            ComparedWindow(self._ids[row], OLD, count, min(differ, count))
            for row, count, differ in zip(
                rows.tolist(),
                (end - start).tolist(),
                counts[:, 0].astype(int).tolist(),
                strict=True,
            )
            if count > 0
        ]
        pairs: list[LabelledPair] = []
        for row, numbers in zip(rows.tolist(), counts[:, 1:].astype(int).tolist(), strict=True):
            for pair, number in zip(_PAIRS, numbers, strict=True):
                if number:
                    pairs += [replace(pair, device_id=self._ids[row])] * number
        return Evidence(windows, pairs, self._look(state, now))

    def _wrong(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Devices on which the version's labels are permuted."""
        if self._kind == "permuted":
            return np.ones(len(rows), dtype=bool)
        if self._kind == "one_site":
            wrong: NDArray[np.bool_] = self._site[rows] == self._bad_site
            return wrong
        return np.zeros(len(rows), dtype=bool)

    def _paired(
        self, rows: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> Floats:
        wearers = self._wearer[rows]
        right = between(self._new.pairs, wearers, start, end)
        wrong = between(self._new.wrongs, wearers, start, end)
        return np.where(self._wrong(rows)[:, None], wrong, right)

    def _look(self, state: RolloutState, now: float) -> Look | None:
        """The last look that was due, over the devices in the lot's order."""
        started = state.wave_started_at
        number = 0 if started is None else look_number(started, self._terms.soak_s, now)
        if started is None or number < 1:
            return None
        at = look_taken_at(started, self._terms.soak_s, number)
        lot = self._lot
        is_member = self._offered[lot] <= at
        before, after = self._before(lot), self._after(lot, is_member, started, at)
        return Look(
            wave=state.wave + 1,
            number=number,
            strata=[self._strata[row] for row in lot.tolist()],
            is_member=is_member,
            changes=changes(before, after),
            old=(OLD,),
        )

    def _before(self, lot: NDArray[np.int64]) -> Floats:
        start = self._examples(np.full(len(lot), -BEFORE_S), lot)
        end = self._examples(np.zeros(len(lot)), lot)
        answers = between(self._old.answers, self._wearer_before[lot], start, end)
        return self._sums(lot, answers, end - start, 0.0, BEFORE_S, np.zeros(len(lot), dtype=bool))

    def _after(
        self, lot: NDArray[np.int64], is_member: NDArray[np.bool_], started: float, at: float
    ) -> Floats:
        since = np.full(len(lot), started)
        members = lot[is_member]
        if len(members):
            since[is_member] = np.maximum(self._on_target(members, at), started)
        start = self._examples(since, lot)
        end = self._examples(np.full(len(lot), at), lot)
        answers = between(self._old.answers, self._wearer[lot], start, end)
        if len(members):
            mine = (self._wearer[members], start[is_member], end[is_member])
            wrong = self._wrong(members)[:, None]
            answers[is_member] = np.where(
                wrong, between(self._new.permuted, *mine), between(self._new.answers, *mine)
            )
        return self._sums(lot, answers, end - start, self._hour[lot], at - started, is_member)

    def _sums(
        self,
        lot: NDArray[np.int64],
        answers: Floats,
        examples: NDArray[np.int64],
        hour: Floats | float,
        seconds: float,
        is_member: NDArray[np.bool_],
    ) -> Floats:
        """Rows as `core.device_change` adds them up."""
        rng, count = self._rng, len(lot)
        found = np.zeros((count, len(COLUMNS) + answers.shape[1] - 1))
        failing = self._error_rate[lot] + (NAN_SHARE if self._kind == "nan" else 0.0) * is_member
        failed = rng.binomial(examples, failing)
        given = examples - failed
        slower = math.log(SLOWER) if self._kind == "slow" else 0.0
        noise = rng.normal(0.0, 0.15, count) / math.sqrt(max(seconds / 60, 1.0))
        latency = np.log(self._latency[lot]) + hour + noise + slower * is_member
        latency += np.where(rng.random(count) < 0.5, self._busy[lot], 0.0)
        found[:, AT["examples"]] = given
        found[:, AT["failed"]] = failed
        found[:, AT["crashes"]] = rng.poisson(self._crash_rate[lot] * seconds)
        found[:, AT["latency_weight"]] = given
        found[:, AT["log_latency"]] = latency * given
        # The old version runs in shadow on members, whose memory then says nothing.
        found[:, AT["memory_weight"]] = np.where(is_member, 0, given)
        found[:, AT["log_memory"]] = np.log(self._memory[lot]) * found[:, AT["memory_weight"]]
        found[:, AT["confidence"]] = answers[:, 0]
        found[:, AT["confidence_weight"]] = examples
        found[:, len(COLUMNS) :] = answers[:, 1:]
        return found

    def _seen(self, state: RolloutState, evidence: Evidence, now: float) -> Seen:
        rows = np.flatnonzero(np.isfinite(self._offered))
        everyone = np.ones(len(rows), dtype=bool)
        return Seen(
            state.members,
            rows,
            self._before(rows),
            self._after(rows, everyone, self._start, now),
            evidence.windows,
            evidence.pairs,
        )
