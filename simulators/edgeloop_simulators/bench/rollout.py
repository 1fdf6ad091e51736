"""`make bench-rollout`: good and bad rollouts by the thousand, and what the gates make of them.

The engine and its gates are the controller's own, at their default terms; fleets, devices and
versions are those of `bench.rollout_fleet`. Beside them the same rollouts with a shadow phase on
five devices first, with a gate that looks at failed installs alone, and with one of fixed
thresholds. Seeds below EVALUATED_FROM are for calibration (ADR 0023 says what was set by them); the
benchmark evaluates those from there on.
"""

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_simulators.bench.rollout_fleet import KINDS, Kind
from edgeloop_simulators.bench.rollout_gates import fixed_thresholds, installs_alone
from edgeloop_simulators.bench.rollout_models import World, make_world
from edgeloop_simulators.bench.rollout_play import WAVES, Outcome, Rollout

EVALUATED_FROM: Final = 1_000_000
EXPOSED_MAX: Final = 0.05
HALTED_MIN: Final = 0.99
WORLDS: Final = 4
"""Sets of wearers and models, trained anew, over which the rollouts are spread."""
CHUNK: Final = 10

SHADOW: Final = ShadowTerms(devices=5)
"""As `--shadow 5` has it."""

Judge = Literal["edgeloop", "edgeloop, shadow first", "installs alone", "fixed thresholds"]
NAMES: Final[dict[Kind, str]] = {
    "good": "good: retrained, as good as the old",
    "permuted": "permuted labels",
    "weaker": "accuracy down 10 points",
    "slow": "latency doubled",
    "nan": "2% NaN",
    "crash": "crash on one architecture only",
    "one_site": "bad at one site only",
}


class Work(NamedTuple):
    judge: Judge
    kind: Kind
    seeds: Sequence[int]


def play(work: Work) -> tuple[Work, list[Outcome]]:
    found = []
    for seed in work.seeds:
        world = _world(seed % WORLDS)
        if work.judge == "edgeloop":
            rollout = Rollout(world, work.kind, seed, RolloutTerms())
        elif work.judge == "edgeloop, shadow first":
            rollout = Rollout(world, work.kind, seed, RolloutTerms(shadow=SHADOW))
        else:
            other = fixed_thresholds if work.judge == "fixed thresholds" else None
            rollout = Rollout(world, work.kind, seed, installs_alone(), other)
        found.append(rollout.run())
    return work, found


@lru_cache(maxsize=WORLDS)
def _world(number: int) -> World:
    return make_world(wearers=48, seed=number)


def _works(rollouts: int, others: int, first: int) -> Iterator[Work]:
    counts: dict[Judge, int] = {
        "edgeloop": rollouts,
        "edgeloop, shadow first": others,
        "installs alone": others,
        "fixed thresholds": others,
    }
    for judge, count in counts.items():
        for kind in KINDS:
            for start in range(first, first + count, CHUNK):
                yield Work(judge, kind, range(start, min(start + CHUNK, first + count)))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Shares and delays of rollouts of one kind under one gate. `within` is the share that was
    halted before more than EXPOSED_MAX of the fleet, rounded up to a device, was exposed."""
    halted = [one for one in outcomes if one.halted]
    within = [one for one in halted if one.exposed <= math.ceil(EXPOSED_MAX * one.devices)]
    delays = sorted(one.seconds for one in halted)
    exposed = sorted(one.exposed / one.devices for one in outcomes)
    return {
        "rollouts": len(outcomes),
        "halted": len(halted) / len(outcomes),
        "within": len(within) / len(outcomes),
        "delay_median_s": median(delays) if delays else None,
        "delay_p95_s": _quantile(delays, 0.95) if delays else None,
        "exposed_median": median(exposed),
        "exposed_p99": _quantile(exposed, 0.99),
        "exposed_max": exposed[-1],
        "gates": dict(Counter(one.gate for one in halted).most_common()),
    }


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, math.ceil(share * len(ascending)) - 1)]


def held(kind: Kind, found: dict[str, Any], rate: float) -> bool:
    """Whether our gates kept the goal: at most `rate` of the good halted; of the bad at least
    HALTED_MIN, before more than EXPOSED_MAX of the fleet was exposed."""
    if kind == "good":
        return bool(found["halted"] <= rate)
    return bool(found["within"] >= HALTED_MIN)


def _show(found: dict[tuple[Judge, Kind], dict[str, Any]], console: Console) -> None:
    headings = ("", "gate", "halted", "… within 5%", "after, median / p95", "exposed, median / p99")
    table = Table(title=f"rollouts at the default settings, waves {WAVES}", title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for kind in KINDS:
        for (judge, of), one in found.items():
            if of != kind:
                continue
            delay = (
                "-"
                if one["delay_median_s"] is None
                else f"{one['delay_median_s']:,.0f} / {one['delay_p95_s']:,.0f} s"
            )
            table.add_row(
                NAMES[kind] if judge == "edgeloop" else "",
                judge,
                f"{one['halted']:.1%} of {one['rollouts']:,}",
                f"{one['within']:.1%}",
                delay,
                f"{one['exposed_median']:.2%} / {one['exposed_p99']:.2%}",
            )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="of each kind")
    parser.add_argument("--others", type=int, help="of each kind for each other gate; a tenth")
    parser.add_argument("--first-seed", type=int, default=EVALUATED_FROM)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="every outcome, for a look at one")
    given = parser.parse_args()
    others = given.others if given.others is not None else max(1, given.rollouts // 10)
    outcomes: dict[tuple[Judge, Kind], list[Outcome]] = {}
    began = time.monotonic()
    with ProcessPoolExecutor(given.jobs) as pool:
        for work, done in pool.map(play, _works(given.rollouts, others, given.first_seed)):
            if (work.judge, work.kind) not in outcomes:
                print(f"{work.judge}: {NAMES[work.kind]}", file=sys.stderr, flush=True)
            outcomes.setdefault((work.judge, work.kind), []).extend(done)
    found = {key: summary(of_kind) for key, of_kind in outcomes.items()}
    console = Console(width=140)
    _show(found, console)
    rate = RolloutTerms().false_halt_rate
    missed = [kind for kind in KINDS if not held(kind, found["edgeloop", kind], rate)]
    for kind in KINDS:
        ours = found["edgeloop", kind]
        console.print(
            f"{NAMES[kind]}: halted by {ours['gates']}, exposed {ours['exposed_max']:.2%} at most"
        )
    console.print(f"stated false-halt rate {rate:.1%}; took {time.monotonic() - began:,.0f} s")
    console.print(f"goals missed: {', '.join(NAMES[kind] for kind in missed) or 'none'}")
    if given.json:
        rows = [{"judge": judge} | asdict(one) for (judge, _), of in outcomes.items() for one in of]
        given.json.write_text(json.dumps(rows))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
