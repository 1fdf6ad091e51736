"""A world in two halves: devices, broker and links here, the controller's side in a process of its
own or, with the same outcome, in this one.

Every LINK_S of virtual time the halves exchange what they said; meanwhile both run. So long does a
message take between broker and controller: less than a device waits for an acknowledgement.

Invariants: the trace depends on spec and seed alone, not on where the other half runs; a half that
fails takes the world with it; no process is left behind.
"""

import gc
import multiprocessing
import resource
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Protocol

from edgeloop_protocol.limits import KIB
from edgeloop_protocol.messages import Desired, decode
from edgeloop_protocol.topics import Down, parse_down_topic
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.virtual.controller_record import ControllerRecord
from edgeloop_simulators.virtual.controller_side import Answer, Asked, ControllerSide, Message
from edgeloop_simulators.virtual.faults import Fault
from edgeloop_simulators.virtual.seen import Observe
from edgeloop_simulators.virtual.spec import WorldSpec
from edgeloop_simulators.virtual.world import World

LINK_S: Final = 3.0
ENDS_WITHIN_S: Final = 30.0


class OtherHalf(Protocol):
    def ask(self, asked: Asked) -> None: ...

    def answer(self) -> Answer:
        """Of what was asked last; waits for it."""

    def close(self) -> None: ...


class HereHalf:
    """In this process: runs when it is asked."""

    def __init__(self, directory: Path, spec: WorldSpec, seed: int) -> None:
        self._side = ControllerSide(directory, spec, seed)
        self._answer = Answer()

    def ask(self, asked: Asked) -> None:
        self._answer = self._side.run(asked)

    def answer(self) -> Answer:
        return self._answer

    def close(self) -> None:
        self._side.close()


class ForkedHalf:
    """In a child of this process, which must have no other thread."""

    def __init__(self, directory: Path, spec: WorldSpec, seed: int) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, directory, spec, seed), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, asked: Asked) -> None:
        self._pipe.send(asked)

    def answer(self) -> Answer:
        """Raises SimulatorError with the child's own words."""
        try:
            answer = self._pipe.recv()
        except EOFError as error:
            raise SimulatorError("the controller's process has ended") from error
        if isinstance(answer, str):
            raise SimulatorError(f"the controller's process failed: {answer}")
        assert isinstance(answer, Answer)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(ENDS_WITHIN_S)
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, directory: Path, spec: WorldSpec, seed: int) -> None:
    try:
        side = ControllerSide(directory, spec, seed)
        gc.collect()
        gc.freeze()  # what came with the fork is none of its garbage
        while True:
            answer = side.run(pipe.recv())
            used = resource.getrusage(resource.RUSAGE_SELF)
            answer.cpu_s = used.ru_utime + used.ru_stime
            answer.peak_bytes = used.ru_maxrss * KIB
            pipe.send(answer)
    except (EOFError, BrokenPipeError):  # the world has ended
        side.close()
    except Exception:
        pipe.send(traceback.format_exc())


class ControllerThere:
    """What a world has of a controller whose host is in the other half."""

    def __init__(self, directory: Path, half: OtherHalf) -> None:
        self.record = ControllerRecord(directory / "edgeloop.sqlite")
        self.is_up = True
        self.half = half
        self.artifacts: dict[str, bytes] = {}

    def stored(self, digest: str) -> bytes | None:
        return self.artifacts.get(digest)

    def start(self) -> None:
        """It starts with its half."""

    def begin(self, fault: Fault) -> None:
        raise SimulatorError(f"{fault}: a controller in another half has no faults")

    def end(self, fault: Fault) -> None: ...

    def close(self) -> None:
        self.half.close()
        self.record.close()


class WorldInHalves(World):
    """`forked=False`: both halves in this process, one after the other."""

    def __init__(
        self, spec: WorldSpec, seed: int, observers: Sequence[Observe] = (), *, forked: bool = True
    ) -> None:
        super().__init__(spec, (), seed, observers, trace_messages=False)
        self._forked = forked
        self._up: list[Message] = []
        self._undone = len(spec.script)
        self.controller_cpu_s = 0.0
        self.controller_events = self.controller_peak_bytes = 0

    @property
    def steps_undone(self) -> int:
        return self._undone

    def _build_controller(self, directory: Path) -> ControllerThere:
        half = (ForkedHalf if self._forked else HereHalf)(directory, self.spec, self.seed)
        self._there = ControllerThere(directory, half)
        self.network.broker.hears_up = self._hear
        half.ask(Asked(0.0))
        self.loop.call_at(0.0, lambda: self._exchange(0.0))
        return self._there

    def _hear(self, topic: str, payload: bytes) -> None:
        self._up.append((topic, payload))

    def _exchange(self, now_s: float) -> None:
        """Take what the controller said in the step that ends now, and begin the next step."""
        answer = self._there.half.answer()
        self._take(answer)
        end_s = self.spec.duration_s
        if now_s >= end_s or self._breaches:
            return
        until_s = min(end_s, self._next_exchange_s(now_s, answer.next_at_s))
        messages, self._up = tuple(self._up), []
        self._there.half.ask(Asked(until_s, messages, self._device_laws.new_champions()))
        self.loop.call_at(until_s, lambda: self._exchange(until_s))

    def _next_exchange_s(self, now_s: float, theirs_s: float | None) -> float:
        """One step on; or further, while neither half has anything to do."""
        if self._up:
            return now_s + LINK_S
        ours_s = self.loop.next_at_s
        idle_until_s = min(t for t in (ours_s, theirs_s, self.spec.duration_s) if t is not None)
        return now_s + max(LINK_S, (idle_until_s - now_s) // LINK_S * LINK_S)

    def _take(self, answer: Answer) -> None:
        self._there.artifacts.update(answer.artifacts)
        self.behaviours.update(answer.behaviours)
        self._undone = answer.undone
        self.controller_cpu_s, self.controller_events = answer.cpu_s, answer.events
        self.controller_peak_bytes = answer.peak_bytes
        for seen in answer.seen:
            self.observe(seen)
        for violation in answer.violations:
            self._breaches.tell(violation.invariant, violation.part, violation.detail)
        for topic, payload in answer.messages:
            device_id, kind = parse_down_topic(topic)
            if kind is Down.DESIRED:
                self._controller_laws.offered(device_id, decode(Desired, payload))
            self.network.broker.publish(topic, payload)
