"""The verdict over a new version on this device, from its runner's progress (DESIGN §4).

Invariants: a crash and a hang are judged elsewhere (the runner is gone); here are NaN and Inf,
wrong shapes and errors, memory, constant output, latency, and time. NaN or Inf once is enough, and
so is a runner larger than its cap. The error rate, constant output and the latency are judged when
there are enough examples, so that one hiccup decides nothing. A version that says the same for long
is constant only beside one that does not: a decision tree at rest gives one leaf, rightly.
"""

from dataclasses import dataclass
from typing import Final

from edgeloop_agent.core.events import Progress
from edgeloop_protocol.messages import Probation

LATENCY_FLOOR_US: Final = 2000.0
"""A p95 below this is never a slowdown: on a busy device the scheduler alone makes as much."""
LATENCY_SURE_EXAMPLES: Final = 100
LATENCY_SURE_S: Final = 20.0
"""A slow p95 of fewer examples may be two hiccups of a busy device: the version is tried on, for so
long beyond the probation's `min_s`, until there are as many."""
SAME_ANSWERS_MIN: Final = 20
"""Fewer answers that are all the same prove nothing, whatever the probation's `min_examples`."""


@dataclass(frozen=True, slots=True)
class Proven:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    cause: str
    detail: str


Verdict = Proven | Failed | None


def judge(
    terms: Probation,
    progress: Progress,
    elapsed_s: float,
    old_latency_p95_us: float | None,
    memory_max_bytes: int = 0,
) -> Verdict:
    """None: go on. `old_latency_p95_us`: the old version's in shadow, or what it last reported.

    `memory_max_bytes` caps the resident size of the runner process, which is the runtime, this
    version and, while there is one, the version in shadow; 0: no cap.
    """
    if progress.nonfinite:
        given = progress.examples + progress.nonfinite
        return Failed("nan or inf", f"in {progress.nonfinite} of {given} answers")
    too_large = above(memory_max_bytes, progress)
    if too_large is not None:
        return too_large
    judged = progress.examples + progress.errors
    enough = judged >= max(terms.min_examples, 1)
    if enough and progress.errors > terms.max_error_rate * judged:
        return Failed("errors", f"{progress.errors} of {judged} examples: {progress.first_error}")
    if progress.shadow_varied and progress.same_answers >= max(
        terms.min_examples, SAME_ANSWERS_MIN
    ):
        return Failed(
            "constant output",
            f"{progress.same_answers} different examples got the very same scores, "
            "and different labels from the old version",
        )
    if enough and elapsed_s >= terms.min_s and progress.examples >= terms.min_examples:
        slower = _slower(terms, progress, old_latency_p95_us)
        if slower is None:
            return Proven()
        sure_at_s = min(terms.min_s + LATENCY_SURE_S, terms.max_s)
        is_sure = progress.examples >= LATENCY_SURE_EXAMPLES or elapsed_s >= sure_at_s
        return slower if is_sure else None
    if elapsed_s >= terms.max_s:
        return Failed(
            "not proven in time",
            f"{progress.examples} of {terms.min_examples} examples in {terms.max_s:g} s"
            + (f"; {progress.first_error}" if progress.first_error else ""),
        )
    return None


def above(memory_max_bytes: int, progress: Progress) -> Failed | None:
    """Is the runner process larger than its cap? 0: there is none."""
    if not 0 < memory_max_bytes < progress.memory_bytes:
        return None
    return Failed(
        "memory",
        f"the runner process has {progress.memory_bytes} bytes resident; "
        f"its limit is {memory_max_bytes} (the manifest's requires.memory_bytes, "
        "else the agent's limits.runner_memory_max_bytes)",
    )


def _slower(terms: Probation, progress: Progress, old_us: float | None) -> Failed | None:
    new_us = progress.latency_p95_us
    if new_us is None or old_us is None or new_us <= LATENCY_FLOOR_US:
        return None
    if new_us <= terms.max_latency_ratio * old_us:
        return None
    return Failed(
        "slower",
        f"p95 {new_us:.0f} us against {old_us:.0f} us; the limit is {terms.max_latency_ratio:g}x",
    )
