"""The agent's RunnerHost port in virtual time: which runner processes a device has.

Invariant: a runner is known from its start to its exit, or until the whole device died.
"""

from edgeloop_agent.core.effects import StartRunner
from edgeloop_simulators.virtual.device.runner import RunnerWorld, VirtualRunner


class VirtualRunners:
    """The RunnerHost port."""

    __slots__ = ("_runners", "_world")

    def __init__(self, world: RunnerWorld) -> None:
        self._world = world
        self._runners: dict[tuple[str, int], VirtualRunner] = {}

    def start(self, effect: StartRunner) -> None:
        runner = VirtualRunner(self._world, effect, self._forget)
        self._runners[effect.slot, effect.runner] = runner
        self._world.watcher.runner_started(runner)
        runner.begin()

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        source, reader = self._runners.get((slot, runner)), self._runners.get((slot, challenger))
        if source is not None and reader is not None:
            reader.shadow_of(source)

    def go(self, slot: str, runner: int) -> None:
        if (found := self._runners.get((slot, runner))) is not None:
            found.go()

    def drop_shadow(self, slot: str, runner: int) -> None:
        if (found := self._runners.get((slot, runner))) is not None:
            found.drop_shadow()

    def capture(self, slot: str, runner: int, examples: int) -> None:
        """Nobody asks for examples here."""

    def stop(self, slot: str, runner: int, kill: bool) -> None:
        if (found := self._runners.get((slot, runner))) is not None:
            found.stop(kill)

    def stop_all(self, kill: bool) -> None:
        for runner in tuple(self._runners.values()):
            runner.stop(kill)

    def alive(self) -> int:
        return len(self._runners)

    def all_killed(self) -> None:
        """The supervisor is gone, and with it every runner, without a word."""
        for runner in self._runners.values():
            runner.silence()
        self._runners.clear()

    def running(self) -> tuple[VirtualRunner, ...]:
        return tuple(self._runners.values())

    def _forget(self, runner: VirtualRunner) -> None:
        self._runners.pop((runner.slot, runner.number), None)
