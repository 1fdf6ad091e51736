"""The part of a world that holds some of its devices, with their links and a broker.

Invariants: as every part's (`parts.exchange`); what happens on a device is what would happen to
it in a world of one part whose controller is as far away.
"""

from pathlib import Path

from edgeloop_protocol.messages import Desired, decode
from edgeloop_protocol.topics import Down, parse_down_topic
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.virtual.controller.record import ControllerRecord
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.parts.exchange import Answer, Asked, Message
from edgeloop_simulators.virtual.spec.faults import Fault
from edgeloop_simulators.virtual.spec.world import WorldSpec
from edgeloop_simulators.virtual.world.world import World


class ControllerElsewhere:
    """What a world has of a controller whose host is in another part."""

    def __init__(self, directory: Path) -> None:
        self.record = ControllerRecord(directory / "edgeloop.sqlite")
        self.is_up = True
        self.artifacts: dict[str, bytes] = {}

    def stored(self, digest: str) -> bytes | None:
        return self.artifacts.get(digest)

    def start(self) -> None:
        """It starts in its own part."""

    def begin(self, fault: Fault) -> None:
        raise SimulatorError(f"{fault}: a controller in another part has no faults")

    def end(self, fault: Fault) -> None: ...

    def close(self) -> None:
        self.record.close()


class DevicesPart(World):
    def __init__(self, directory: Path, spec: WorldSpec, seed: int) -> None:
        super().__init__(spec, (), seed, trace_messages=False)
        self._up: list[Message] = []
        self._build(directory)

    def advance(self, asked: Asked) -> Answer:
        self._elsewhere.artifacts.update(asked.artifacts)
        self.behaviours.update(asked.behaviours)
        for topic, payload in asked.messages:
            device_id, kind = parse_down_topic(topic)
            if kind is Down.DESIRED:
                self._controller_laws.offered(device_id, decode(Desired, payload))
            self.network.broker.publish(topic, payload)
        step, breaches = self.loop.step, self._breaches
        while not breaches and step(asked.until_s):
            pass
        messages, self._up = self._up, []
        return Answer(
            messages=messages,
            champions=self._device_laws.new_champions(),
            violations=self.violations(),
            next_at_s=self.loop.next_at_s,
        )

    def finish(self) -> Outcome:
        """The controller rests: its database is read."""
        if not self._breaches:
            self._check_convergence(self._breaches)
        return self._outcome()

    def close(self) -> None:
        self.controller.close()

    def _build_controller(self, directory: Path) -> ControllerElsewhere:
        self._elsewhere = ControllerElsewhere(directory)
        self.network.broker.hears_up = self._hear
        return self._elsewhere

    def _hear(self, topic: str, payload: bytes) -> None:
        self._up.append((topic, payload))
