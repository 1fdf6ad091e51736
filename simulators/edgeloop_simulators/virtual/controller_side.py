"""The controller's side of a world in two halves: its host, its operator, its laws, a loop.

What is on this side knows the other by messages alone, which take their time to come and go; so
both can run a step of virtual time at once, each on what the other said in the step before
(conservative parallel simulation: Chandy and Misra 1979; the latency of the link is the lookahead).

Invariants: what comes of a step depends on the seed and on what was asked, on no process and no
clock; a step's messages, and what the laws of the other side must know, leave together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeloop_protocol.mqtt import OUTGOING_MAX, BrokerListener
from edgeloop_protocol.topics import Down
from edgeloop_simulators.virtual.behaviour import Behaviour
from edgeloop_simulators.virtual.controller_host import ControllerHost
from edgeloop_simulators.virtual.controller_laws import ControllerLaws
from edgeloop_simulators.virtual.invariants import Breaches
from edgeloop_simulators.virtual.loop import EventLoop
from edgeloop_simulators.virtual.operator import Operator
from edgeloop_simulators.virtual.outcome import Violation
from edgeloop_simulators.virtual.retraining_host import RetrainingHost, RetrainingWorld
from edgeloop_simulators.virtual.seen import Seen
from edgeloop_simulators.virtual.spec import WorldSpec
from edgeloop_simulators.virtual.wire import Place

ACK_ENDING: Final = f"/{Down.ACK}"
Message = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """Run up to `until_s`, exclusive of nothing. `champions`: device and digest, where a version
    became champion since the last step."""

    until_s: float
    messages: tuple[Message, ...] = ()
    champions: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Answer:
    """What a step came to. `next_at_s`: of this side's next event; None: there is none."""

    messages: list[Message] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    next_at_s: float | None = None
    undone: int = 0
    events: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    """Of its process, if it has one of its own."""


class ControllerSide:
    """`directory` holds a migrated `edgeloop.sqlite`."""

    def __init__(self, directory: Path, spec: WorldSpec, seed: int) -> None:
        self._loop = EventLoop()
        self._breaches = Breaches(self._loop)
        self._champions: dict[str, set[str]] = {}
        self._answer = Answer()
        self._client = _Client(self._loop, self._answer)
        self._behaviours: dict[str, Behaviour] = {}
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

    def run(self, asked: Asked) -> Answer:
        for device_id, digest in asked.champions:
            self._champions.setdefault(device_id, set()).add(digest)
        for topic, payload in asked.messages:
            self._client.deliver(topic, payload)
        loop, breaches = self._loop, self._breaches
        while not breaches and loop.step(asked.until_s):
            pass
        answer, self._answer = self._answer, Answer()
        self._client.answer = self._answer
        answer.artifacts = self._host.artifacts.fresh()
        answer.behaviours = dict(self._behaviours)
        self._behaviours.clear()
        answer.violations = breaches.found()
        answer.next_at_s = loop.next_at_s
        answer.undone, answer.events = self._operator.undone, loop.events_run
        return answer

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
        self._answer.seen.append(seen)

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
    """The controller's end of the link. Of what it says at one moment, OUTGOING_MAX messages are
    taken, as by the real client, which forwards acknowledgements between two commits."""

    def __init__(self, loop: EventLoop, answer: Answer) -> None:
        self.answer = answer
        self._loop = loop
        self._listener: BrokerListener | None = None
        self._moment_s = 0.0
        self._taken = 0

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        self._loop.call_in(0.0, listener.connected)

    def publish(self, topic: str, payload: bytes) -> bool:
        if not topic.endswith(ACK_ENDING):
            if self._loop.now_s != self._moment_s:
                self._moment_s, self._taken = self._loop.now_s, 0
            if self._taken >= OUTGOING_MAX:
                return False
            self._taken += 1
        self.answer.messages.append((topic, payload))
        return True

    def crash(self) -> None:
        self._listener = None

    def deliver(self, topic: str, payload: bytes) -> None:
        if self._listener is not None:
            self._listener.message(topic, payload)
