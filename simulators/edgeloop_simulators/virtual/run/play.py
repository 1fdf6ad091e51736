"""Run a scenario of a virtual world from its file to its verdict.

Invariant: the same file and seed give the same run.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeloop_simulators.virtual.run.expectations import Check, judge
from edgeloop_simulators.virtual.run.recorder import Recorder
from edgeloop_simulators.virtual.run.recording import Recording
from edgeloop_simulators.virtual.scenario.build import build
from edgeloop_simulators.virtual.scenario.load import LoadedVirtual
from edgeloop_simulators.virtual.world.world import World


@dataclass(frozen=True)
class Run:
    loaded: LoadedVirtual
    recording: Recording
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def play(loaded: LoadedVirtual, seed: int | None = None) -> Run:
    """`seed`: another world of the same kind; None: the file's. Raises SimulatorError where the
    scenario's data cannot be used."""
    seed = loaded.scenario.seed if seed is None else seed
    with TemporaryDirectory(prefix="edgeloop-scenario-") as directory:
        built = build(loaded, seed, Path(directory))
        recorder = Recorder()
        world = World(
            built.spec,
            built.faults,
            seed,
            (recorder,),
            trace_messages=False,
            sees_controller=recorder.evidence.see,
        )
        recording = Recording(built, recorder, world.run())
    return Run(loaded, recording, judge(loaded.scenario.expect, recording))
