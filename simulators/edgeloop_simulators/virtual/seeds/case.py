"""One world to be played: a seed, and what is left of the world that is drawn from it.

Invariants: a case of all that was drawn is the seed's own world; a case is said in full by its
seed and the numbers of what is left, as long as `draw_world` draws the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.seeds.explore_world import Drawn, draw_world
from edgeloop_simulators.virtual.spec.faults import Fault


@dataclass(frozen=True)
class Case:
    """`faults` are those that happen; `steps` and `devices` are numbers, from 0, of the script's
    steps and the devices that are left."""

    seed: int
    faults: tuple[Fault, ...]
    steps: tuple[int, ...]
    devices: tuple[int, ...]

    def drawn(self) -> Drawn:
        """The world to be played. Raises CaseError for numbers that the seed's world has not."""
        spec = draw_world(self.seed).spec
        _check("step", self.steps, len(spec.script))
        _check("device", self.devices, len(spec.devices))
        return Drawn(
            replace(
                spec,
                script=tuple(spec.script[number] for number in self.steps),
                devices=tuple(spec.devices[number] for number in self.devices),
            ),
            self.faults,
        )

    def replay_arguments(self) -> str:
        """What to give to `edgeloop-sim replay`."""
        drawn = draw_world(self.seed)
        words = [str(self.seed)]
        if self.faults != drawn.faults:
            numbers = [drawn.faults.index(fault) for fault in self.faults]
            words.append(f"--faults {_numbers(numbers)}")
        if len(self.steps) < len(drawn.spec.script):
            words.append(f"--steps {_numbers(self.steps)}")
        if len(self.devices) < len(drawn.spec.devices):
            words.append(f"--devices {_numbers(self.devices)}")
        return " ".join(words)


def case_of(seed: int) -> Case:
    drawn = draw_world(seed)
    return Case(
        seed,
        drawn.faults,
        tuple(range(len(drawn.spec.script))),
        tuple(range(len(drawn.spec.devices))),
    )


def _numbers(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _check(what: str, numbers: Sequence[int], count: int) -> None:
    for number in numbers:
        if not 0 <= number < count:
            raise CaseError(
                f"{what} {number} is not in this seed's world: it has {count}, the first is 0"
            )
