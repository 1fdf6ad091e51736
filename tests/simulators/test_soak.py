"""The soak finds what grows: its rules on made-up weights, and leaks planted in a real agent."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES
from edgeloop_simulators.soak.run import LOGS, Terms, soaking
from edgeloop_simulators.soak.verdict import WAL_KB_MAX, Judgement, Limits, Weight, judge, theil_sen
from edgeloop_simulators.weighing import Memory, ProcessWeight, Stored, stored_in

WARMING = Limits(memory=20_000.0, stored=20_000.0)
"""A soak of a few swaps is all warming up: some kB a swap. The planted leak is 1,000 kB a swap."""

LEAKS = """
import os, sys
from edgeloop_agent.cli import main
from edgeloop_agent.shell.runner_process import RunnerProcesses

start, grown = RunnerProcesses.start, []

def leaking(self, effect):
    os.open("/dev/null", os.O_RDONLY)
    grown.append(os.urandom(1_000_000))
    (self._disk.path("models").parent / f"left-{len(grown)}").touch()
    start(self, effect)

RunnerProcesses.start = leaking
sys.exit(main())
"""


def process(rss: float = 40_000.0, descriptors: int = 16, threads: int = 5) -> ProcessWeight:
    return ProcessWeight(Memory(rss, rss / 2, rss / 2, rss / 2), descriptors, threads)


def weights(**growing: Any) -> list[Weight]:
    """40 of them; each field of `growing` is a function of the swap."""
    flat = Weight(0, 0, process(), process(), process(), 2, stored())
    return [
        replace(flat, swap=swap, **{name: of(swap) for name, of in growing.items()})
        for swap in range(1, 41)
    ]


def grown(judged: list[Judgement]) -> set[str]:
    return {one.what for one in judged if not one.is_flat}


def stored(**growing: int) -> Stored:
    return replace(Stored(15, 400_000, 4_000_000, 5, 6, 7), **growing)


def test_what_stays_is_flat() -> None:
    assert not grown(judge(weights(), LOGS))
    assert not grown(judge(weights(supervisor=lambda n: process(min(n, 20) * 900.0)), LOGS)), (
        "warming up is the first half's"
    )
    assert not grown(judge(weights(supervisor=lambda n: process(90_000.0 * (n == 30))), LOGS)), (
        "one outlier decides nothing"
    )
    open_for_a_moment = weights(supervisor=lambda n: process(descriptors=16 + (n == 33)))
    assert not grown(judge(open_for_a_moment, LOGS))


@pytest.mark.parametrize(
    ("growing", "found"),
    [
        (
            {"supervisor": lambda n: process(40_000 + n)},
            {"supervisor, resident", "supervisor, anonymous"},
        ),
        (
            {"steady": lambda n: process(40_000 + n)},
            {"steady runner, resident", "steady runner, anonymous"},
        ),
        ({"swapped": lambda n: process(40_000 + n)}, {"each new runner, resident"}),
        ({"supervisor": lambda n: process(descriptors=n)}, {"supervisor, descriptors"}),
        ({"supervisor": lambda n: process(threads=5 + (n > 30))}, {"supervisor, threads"}),
        ({"steady": lambda n: process(descriptors=n)}, {"steady runner, descriptors"}),
        ({"steady": lambda n: process(threads=n)}, {"steady runner, threads"}),
        ({"swapped": lambda n: process(descriptors=n)}, {"each new runner, descriptors"}),
        ({"swapped": lambda n: process(threads=n)}, {"each new runner, threads"}),
        ({"runners": lambda n: 2 + n // 30}, {"runner processes"}),
        ({"stored": lambda n: stored(files=15 + n)}, {"files in the state directory"}),
        ({"stored": lambda n: stored(outbox=n * 100)}, {"outbox"}),
        ({"stored": lambda n: stored(models=n * 100)}, {"models"}),
        ({"stored": lambda n: stored(rest=n * 100)}, {"journal and the rest"}),
        ({"stored": lambda n: stored(logs=LOGS * RUNNER_LOG_MAX_BYTES + n - 39)}, {"agent's logs"}),
        ({"stored": lambda n: stored(wal=int(WAL_KB_MAX) * 1000 + n - 39)}, {"outbox's log"}),
    ],
)
def test_each_weight_that_grows_is_named(growing: dict[str, Any], found: set[str]) -> None:
    assert grown(judge(weights(**growing), LOGS)) == found


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert theil_sen([1, 2, 3, 4], [2.0, 4.0, 6.0, 8.0]) == 2.0
    assert theil_sen([1, 2, 3, 4, 5], [2.0, 4.0, 600.0, 8.0, 10.0]) == 2.0
    assert theil_sen([1], [5.0]) == 0.0


def test_a_state_directory_is_weighed_by_its_parts(tmp_path: Path) -> None:
    (tmp_path / "models" / "abc").mkdir(parents=True)
    for name, size in {
        "models/abc/model.onnx": 100,
        "outbox.sqlite": 10,
        "outbox.sqlite-wal": 20,
        "agent.log": 3,
        "agent.log.1": 4,
        "journal.json": 1,
    }.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert stored_in(tmp_path) == Stored(5, outbox=10, wal=20, models=100, logs=7, rest=1)


def soaked(directory: Path, terms: Terms, command: tuple[str, ...] | None = None) -> set[str]:
    with soaking(directory, terms, command) as soak:
        found = list(soak.weights(terms))
        assert soak.lost == soak.restarts == 0
    assert [weight.swap for weight in found] == list(range(1, terms.swaps + 1))
    assert found[-1].answered >= terms.inferences
    return grown(judge(found, LOGS, WARMING))


@pytest.mark.e2e
def test_an_agent_is_flat(tmp_path: Path) -> None:
    """SWAPS=1000 INFERENCES=1000000 in `make soak`."""
    assert not soaked(tmp_path, Terms(swaps=12, inferences=5_000))


@pytest.mark.e2e
def test_planted_leaks_are_found(tmp_path: Path) -> None:
    """A descriptor, a megabyte and a file a swap."""
    command = (sys.executable, "-c", LEAKS)
    assert soaked(tmp_path, Terms(swaps=8, inferences=2_000), command) == {
        "supervisor, descriptors",
        "supervisor, resident",
        "supervisor, anonymous",
        "files in the state directory",
    }
