"""The laws of docs/spec/invariants.md in a virtual world: where a breach is told, and who looks.

Invariants: looks at what agents and controller left on their disks and in their database, and at
what the hosts know to be true, never at what is believed where the truth can be had; costs by what
changed. The first breach of each law is kept.
"""

from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.laws.outcome import Violation


class Breaches:
    """Where the laws tell what they found."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._found: dict[str, Violation] = {}

    def tell(self, law: str, part: str, detail: str) -> None:
        """`law`: `EL-INV-n`."""
        self._found.setdefault(law, Violation(law, self._loop.now_s, part, detail))

    def found(self) -> tuple[Violation, ...]:
        return tuple(self._found.values())

    def __bool__(self) -> bool:
        return bool(self._found)
