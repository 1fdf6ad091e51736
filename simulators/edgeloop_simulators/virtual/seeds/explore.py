"""Many seeds, on many processes: which of them break a law, and what was exercised.

Invariants: which seeds fail, and how, depends on the seeds alone, not on the number of processes
nor on who was first (which of many failures are shrunk does); an interrupt leaves no process
behind.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any, Final

from edgeloop_simulators.virtual.seeds.case import case_of
from edgeloop_simulators.virtual.seeds.case_play import Played, play
from edgeloop_simulators.virtual.seeds.shrink import Shrunk, shrink
from edgeloop_simulators.virtual.spec.faults import FaultKind

SHRUNK_MAX: Final = 10
"""Failures that are shrunk: one bug fails many seeds."""
SHRUNK_OF_A_LAW_MAX: Final = 3
AHEAD: Final = 3
"""Tasks waiting for each process, so that none is idle."""
INTERRUPT: Final = (signal.SIGINT,)


@dataclass
class Findings:
    seeds: int = 0
    virtual_s: float = 0.0
    events: int = 0
    wall_s: float = 0.0
    faults: Counter[FaultKind] = field(default_factory=Counter)
    """How many of each kind the worlds held."""
    laws: Counter[str] = field(default_factory=Counter)
    """Broken first, by how many seeds."""
    failures: list[Played] = field(default_factory=list)
    shrunk: list[Shrunk] = field(default_factory=list)
    interrupted: bool = False
    _hashes: dict[int, str] = field(default_factory=dict)

    def add(self, played: Played) -> None:
        self.seeds += 1
        self.virtual_s += played.virtual_s
        self.events += played.events
        self.faults.update(fault.kind for fault in played.case.faults)
        self._hashes[played.case.seed] = played.trace_hash
        if played.law:
            self.laws[played.law] += 1
            self.failures.append(played)

    def in_order(self) -> None:
        self.failures.sort(key=lambda played: played.case.seed)
        self.shrunk.sort(key=lambda shrunk: shrunk.played.case.seed)

    def trace_hash(self) -> str:
        """Over the traces of all seeds, in their order: equal on machines that saw the same."""
        lines = (f"{seed} {self._hashes[seed]}\n" for seed in sorted(self._hashes))
        return hashlib.blake2b("".join(lines).encode(), digest_size=16).hexdigest()


Told = Callable[[Findings], None]


def explore(seeds: Sequence[int], jobs: int, told: Told = lambda _: None) -> Findings:
    """`told` after each world. A keyboard interrupt ends it: what was found until then is returned,
    as `interrupted`."""
    return _Exploring(told).run(seeds, jobs)


class _Exploring:
    def __init__(self, told: Told) -> None:
        self._findings = Findings()
        self._told = told
        self._to_shrink: Counter[str] = Counter()

    def run(self, seeds: Sequence[int], jobs: int) -> Findings:
        began, findings = time.monotonic(), self._findings
        try:
            with workers(jobs) as pool:
                self._collect(pool, seeds, jobs * AHEAD)
        except KeyboardInterrupt:
            findings.interrupted = True
        findings.wall_s = time.monotonic() - began
        findings.in_order()
        return findings

    def _collect(self, pool: ProcessPoolExecutor, seeds: Sequence[int], ahead: int) -> None:
        left = iter(seeds)
        pending: set[Future[Played | Shrunk]] = set()
        while True:
            while len(pending) < ahead and (seed := next(left, None)) is not None:
                pending.add(pool.submit(play_seed, seed))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if isinstance(result, Shrunk):
                    self._findings.shrunk.append(result)
                else:
                    self._findings.add(result)
                    if result.law and self._is_to_be_shrunk(result.law):
                        pending.add(pool.submit(shrink, result))
                self._told(self._findings)

    def _is_to_be_shrunk(self, law: str) -> bool:
        if self._to_shrink.total() >= SHRUNK_MAX or self._to_shrink[law] >= SHRUNK_OF_A_LAW_MAX:
            return False
        self._to_shrink[law] += 1
        return True


def play_seed(seed: int) -> Played:
    return play(case_of(seed))


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that say nothing and leave the interrupt to their parent; gone afterwards."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )
    try:
        with _interrupts_held():
            for _ in range(jobs):
                pool.submit(os.getpid)  # starts a process each
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
            child.join()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started within never see an interrupt; one that comes meanwhile is raised
    afterwards. Blocking alone would not do: threads of numpy's take signals too."""
    resource_tracker.ensure_running()  # or it would unblock the interrupt when it starts
    held: list[int] = []
    ours = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT)
        signal.signal(signal.SIGINT, ours)
    if held:
        raise KeyboardInterrupt


def _begin_worker() -> None:
    logging.disable(logging.CRITICAL)  # what goes wrong in these worlds is what they are for


def document(findings: Findings) -> dict[str, Any]:
    """For programs."""
    return {
        "seeds": findings.seeds,
        "virtual_s": round(findings.virtual_s, 3),
        "wall_s": round(findings.wall_s, 3),
        "events": findings.events,
        "trace_hash": findings.trace_hash(),
        "faults": {kind.value: findings.faults[kind] for kind in FaultKind},
        "violations": dict(sorted(findings.laws.items())),
        "failures": [
            {"seed": played.case.seed, "violation": str(played.violations[0])}
            for played in findings.failures
        ],
        "shrunk": [
            {
                "seed": shrunk.played.case.seed,
                "violation": str(shrunk.played.violations[0]),
                "faults": [fault.model_dump(mode="json") for fault in shrunk.played.case.faults],
                "replay": f"edgeloop-sim replay {shrunk.played.case.replay_arguments()}",
            }
            for shrunk in findings.shrunk
        ],
        "interrupted": findings.interrupted,
    }
