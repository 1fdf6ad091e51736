"""A simulated fleet: real model outputs, simulated devices, and what they tell.

A device is a wearer's stream from a moment of its own, at a rate of its own, with a latency and a
memory of its own; a site draws its wearers unevenly; the hour makes all devices of a site slower;
at some sites the watch moves to the other wrist just when the rollout begins.

Invariants: everything follows from the generator that it is given; times are seconds since the
rollout began.
"""

import math
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.core.device_change import AT, COLUMNS
from edgeloop_controller.core.strata import Stratum
from edgeloop_simulators.bench.rollout_models import Streams, World, between

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Kind = Literal["good", "permuted", "weaker", "slow", "nan", "crash", "one_site"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

FLEETS: Final = (300, 400, 600, 1000, 2000)
FLEET_SHARES: Final = (0.3, 0.3, 0.2, 0.15, 0.05)
ARCHITECTURES: Final = ("x86_64", "aarch64")
AARCH64: Final = 1
SITES_MIN: Final = 3
SITES_MAX: Final = 6
MOVED_SHARE: Final = 0.15
"""Sites at which the watch moves to the other wrist when the rollout begins."""
BEFORE_S: Final = 900.0
NAN_SHARE: Final = 0.02
SLOWER: Final = 2.0
WEAKER_BY: Final = 0.10


class SimulatedFleet:
    """The devices, as rows 0 … count - 1; `offered_at` and `rolls_back` are set from outside."""

    def __init__(
        self, world: World, kind: Kind, rng: np.random.Generator, count: int | None
    ) -> None:
        self._rng, self._kind = rng, kind
        self.count = count = count or int(rng.choice(FLEETS, p=FLEET_SHARES))
        sites = int(rng.integers(SITES_MIN, SITES_MAX + 1))
        self.site = rng.integers(0, sites, count)
        self.architecture = (rng.random(count) < rng.uniform(0.2, 0.5)).astype(np.int64)
        places = zip(self.architecture.tolist(), self.site.tolist(), strict=True)
        self.strata = [Stratum(ARCHITECTURES[a], f"plant-{s}") for a, s in places]
        self._bad_site = int(rng.integers(sites))
        self._draw_devices(world, sites)
        self._old, self._new = world.old, self._version(world)
        self.offered_at = np.full(count, np.inf)
        self.rolls_back = np.zeros(count, dtype=bool)

    def _version(self, world: World) -> Streams:
        """Of the weaker ones that which is wrong on this fleet's own examples as much more often as
        it says."""
        if self._kind != "weaker":
            return world.good[int(self._rng.integers(len(world.good)))]
        drops = [one.drop(self._wearer) for one in world.weaker]
        return world.weaker[int(np.argmin(np.abs(np.array(drops) - WEAKER_BY)))]

    def _draw_devices(self, world: World, sites: int) -> None:
        rng, count = self._rng, self.count
        wearers = len(world.right)
        liked = rng.dirichlet(np.ones(wearers), size=sites)
        drawn = np.array([rng.choice(wearers, p=liked[site]) for site in self.site.tolist()])
        moved = (rng.random(sites) < 0.15)[self.site]
        self._wearer_before = world.right[drawn]
        self._wearer = np.where(moved, world.left[drawn], world.right[drawn])
        self.rate = rng.lognormal(0.0, 0.3, count)
        self._offset = rng.integers(0, 100_000, count)
        self._latency = rng.lognormal(math.log(5000), 0.4, count)
        self._hour = rng.normal(0.0, 0.15, sites)[self.site]
        """How much slower a site has become since before the rollout, as a log."""
        self._busy = np.where(rng.random(count) < 0.03, rng.exponential(0.5, count), 0.0)
        self._memory = rng.lognormal(math.log(60e6), 0.1, count)
        self._error_rate = rng.exponential(0.0005, count)
        self._crash_rate = rng.exponential(1 / (3 * 86_400), count)
        self.install_s = rng.lognormal(math.log(20), 0.5, count)

    # ---- what they tell -------------------------------------------------------------------------

    def examples(self, seconds: Floats, rows: Rows) -> Rows:
        """How far each device's stream has come so long after the rollout began."""
        since = (seconds + BEFORE_S) * self.rate[rows]
        return self._offset[rows] + since.astype(np.int64)

    def on_target_since(self, rows: Rows, now: float) -> Floats:
        """Since when each device has run the version; those that roll it back do not count."""
        since = self.offered_at[rows] + self.install_s[rows]
        return np.minimum(np.where(self.rolls_back[rows], np.inf, since), now)

    def paired(self, rows: Rows, now: float) -> tuple[Rows, Floats]:
        """Examples that both versions answered, and of these what `Streams.pairs` counts."""
        start = self.examples(self.on_target_since(rows, now), rows)
        end = self.examples(np.full(len(rows), now), rows)
        wearers = self._wearer[rows]
        right = between(self._new.pairs, wearers, start, end)
        wrong = between(self._new.wrongs, wearers, start, end)
        return end - start, np.where(self._wrong(rows)[:, None], wrong, right)

    def shadowed(self, rows: Rows, since: Floats, until: Floats) -> tuple[Rows, Rows, Rows]:
        """Of the new version as a challenger from `since` to `until`: examples, of them answers
        unlike the old version's, and those without a finite answer."""
        start, end = self.examples(np.minimum(since, until), rows), self.examples(until, rows)
        wearers = self._wearer[rows]
        right = between(self._new.pairs, wearers, start, end)
        wrong = between(self._new.wrongs, wearers, start, end)
        counts = np.where(self._wrong(rows)[:, None], wrong, right)
        examples = end - start
        failing = self._error_rate[rows] + (NAN_SHARE if self._kind == "nan" else 0.0)
        failed = self._rng.binomial(examples, failing)
        return examples, np.minimum(counts[:, 0].astype(np.int64), examples), failed

    def shadow_ratios(self, windows: int) -> Floats:
        """p95 of the new version as a challenger over the old one's beside it: both see the same
        hour, and the challenger has the lowest priority."""
        slower = math.log(SLOWER) if self._kind == "slow" else 0.0
        ratios: Floats = np.exp(slower + self._rng.normal(0.1, 0.25, windows))
        return ratios

    def _wrong(self, rows: Rows) -> NDArray[np.bool_]:
        """Devices on which the version's labels are permuted."""
        if self._kind == "permuted":
            return np.ones(len(rows), dtype=bool)
        if self._kind == "one_site":
            wrong: NDArray[np.bool_] = self.site[rows] == self._bad_site
            return wrong
        return np.zeros(len(rows), dtype=bool)

    def before(self, lot: Rows) -> Floats:
        start = self.examples(np.full(len(lot), -BEFORE_S), lot)
        end = self.examples(np.zeros(len(lot)), lot)
        answers = between(self._old.answers, self._wearer_before[lot], start, end)
        return self._sums(lot, answers, end - start, 0.0, BEFORE_S, np.zeros(len(lot), dtype=bool))

    def after(self, lot: Rows, is_member: NDArray[np.bool_], started: float, at: float) -> Floats:
        since = np.full(len(lot), started)
        members = lot[is_member]
        if len(members):
            since[is_member] = np.maximum(self.on_target_since(members, at), started)
        start = self.examples(since, lot)
        end = self.examples(np.full(len(lot), at), lot)
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
        lot: Rows,
        answers: Floats,
        examples: Rows,
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
