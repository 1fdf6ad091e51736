"""What the parts of a world say to each other at the end of each step, and who a part is.

A part has a loop of its own and knows the others by messages alone, which take their time to come
and go; so all can run a step of virtual time at once, each on what the others said in the step
before (conservative parallel simulation: Chandy and Misra 1979; the latency is the lookahead).

Invariants: what comes of a step depends on the seed and on what was asked, on no process and no
clock; a step's messages, and what the laws of other parts must know, leave together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.laws.outcome import Outcome, Violation
from edgeloop_simulators.virtual.spec.behaviour import Behaviour

Message = tuple[str, bytes]
"""Topic and payload."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Run up to `until_s`. `champions`: device and digest, where a version became champion;
    `artifacts`, `behaviours`: by digest; all since the last step."""

    until_s: float
    messages: tuple[Message, ...] = ()
    champions: tuple[tuple[str, str], ...] = ()
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """What a step came to. `next_at_s`: of this part's next event; None: there is none. `seen`:
    of parts that are observed."""

    messages: list[Message] = field(default_factory=list)
    champions: tuple[tuple[str, str], ...] = ()
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    violations: tuple[Violation, ...] = ()
    next_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """`cpu_s`, and by how much memory grew at its peak: of the part's process, if it has one."""

    outcome: Outcome
    cpu_s: float = 0.0
    grown_bytes: int = 0


class Part(Protocol):
    def advance(self, asked: Asked) -> Answer: ...

    def finish(self) -> Outcome:
        """After the last step; what the part knows of it."""

    def close(self) -> None: ...
