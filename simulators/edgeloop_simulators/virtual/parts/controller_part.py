"""The part of a world that holds the controller: its host, its operator, its training, its laws.

Invariants: as every part's (`parts.exchange`); production's own `composition.build` is behind
it, as in any world.
"""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgeloop_protocol.mqtt import OUTGOING_MAX, BrokerListener
from edgeloop_protocol.topics import Down
from edgeloop_simulators.virtual.controller.host import ControllerHost
from edgeloop_simulators.virtual.controller.operator import Operator
from edgeloop_simulators.virtual.controller.retraining import RetrainingHost, RetrainingWorld
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.kernel.trace import TraceHash
from edgeloop_simulators.virtual.laws.breaches import Breaches
from edgeloop_simulators.virtual.laws.controller import ControllerLaws
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.parts.exchange import Answer, Asked, Message
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.world import WorldSpec

CARRIED_A_STEP: Final = 900
"""Three hundred a second: a wave comes to its devices one after the other, so that the parts work
at the same time and not in turn."""
ACK_ENDING: Final = f"/{Down.ACK}"


class ControllerPart:
    """`directory` holds a migrated `edgeloop.sqlite`."""

    def __init__(self, directory: Path, spec: WorldSpec, seed: int) -> None:
        self._seed = seed
        self._loop = EventLoop()
        self._hash = TraceHash()
        self._breaches = Breaches(self._loop)
        self._champions: dict[str, set[str]] = {}
        self._behaviours: dict[str, Behaviour] = {}
        self._seen: list[Seen] = []
        self._client = _Client(self._loop)
        ids = frozenset(device.id for device in spec.devices)
        self._laws = ControllerLaws(ids, self._champions_of, self._breaches)
        self._host = ControllerHost(
            directory,
            self._loop,
            self,
            self._see,
            spec.controller,
            spec.starts_at_wall_s,
            self,
            self._retraining(spec, seed),
        )
        self._operator = Operator(self._loop, self._host, spec.models, spec.slot, self._see)
        self._loop.call_at(0.0, self._host.start)
        self._operator.play(spec.script)

    def advance(self, asked: Asked) -> Answer:
        for device_id, digest in asked.champions:
            self._champions.setdefault(device_id, set()).add(digest)
        for topic, payload in asked.messages:
            self._client.deliver(topic, payload)
        loop, breaches = self._loop, self._breaches
        while not breaches and loop.step(asked.until_s):
            pass
        answer = Answer(
            messages=self._client.said(),
            artifacts=self._host.artifacts.fresh(),
            behaviours=dict(self._behaviours),
            seen=self._seen,
            violations=breaches.found(),
            next_at_s=loop.next_at_s,
        )
        self._seen = []
        self._behaviours.clear()
        return answer

    def finish(self) -> Outcome:
        if self._operator.undone:
            self._breaches.tell("EL-INV-7", "controller", "the script is not done")
        return Outcome(
            seed=self._seed,
            trace_hash=self._hash.hexdigest(),
            events=self._loop.events_run,
            virtual_s=self._loop.now_s,
            violations=self._breaches.found(),
            rollouts=self._host.record.verdicts(),
        )

    def close(self) -> None:
        self._host.close()

    # ---- the host's network and watcher ---------------------------------------------------------

    def client(
        self,
        client_id: str,  # noqa: ARG002 - the port's
        subscriptions: tuple[str, ...],  # noqa: ARG002
        will: tuple[str, bytes] | None,  # noqa: ARG002
        place: Place,  # noqa: ARG002
    ) -> "_Client":
        return self._client

    def said(self, host: ControllerHost, topic: str, payload: bytes) -> None:
        self._laws.said(host, topic, payload)

    def controller_touched(self, host: ControllerHost) -> None:
        self._laws.touched(host)

    def _see(self, seen: Seen) -> None:
        self._hash(seen)
        self._seen.append(seen)

    def _champions_of(self, device_id: str) -> Iterable[str]:
        return self._champions.get(device_id, ())

    def _retraining(self, spec: WorldSpec, seed: int) -> RetrainingHost | None:
        if spec.retraining is None:
            return None
        around = RetrainingWorld(
            loop=self._loop,
            behaviours=self._behaviours,
            observe=self._see,
            wake=lambda action: self._host.go_on(action),
            seed=seed,
        )
        return RetrainingHost(around, spec.retraining)


class _Client:
    """The controller's end of the link. It takes at most OUTGOING_MAX messages to wait, as the real
    one does, and carries CARRIED_A_STEP of them a step; acknowledgements go at once."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._listener: BrokerListener | None = None
        self._acks: list[Message] = []
        self._waiting: deque[Message] = deque()

    def said(self) -> list[Message]:
        """Since this was asked last, as far as the link carries it."""
        messages, self._acks = self._acks, []
        for _ in range(min(CARRIED_A_STEP, len(self._waiting))):
            messages.append(self._waiting.popleft())
        return messages

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        self._loop.call_in(0.0, listener.connected)

    def publish(self, topic: str, payload: bytes) -> bool:
        if topic.endswith(ACK_ENDING):
            self._acks.append((topic, payload))
            return True
        if len(self._waiting) >= OUTGOING_MAX:
            return False
        self._waiting.append((topic, payload))
        return True

    def crash(self) -> None:
        self._listener = None

    def deliver(self, topic: str, payload: bytes) -> None:
        if self._listener is not None:
            self._listener.message(topic, payload)
