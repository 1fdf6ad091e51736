"""A large fleet's world: the controller in one part, the devices in two, each in a process of its
own or, with the same outcome, all in this one.

Every LINK_S of virtual time the parts exchange what they said; meanwhile all run. So long does a
message take between broker and controller: less than a device waits for an acknowledgement.

Invariant: the outcome depends on spec and seed alone, not on where the parts run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from edgeloop_protocol.topics import parse_down_topic
from edgeloop_simulators.virtual.kernel.seen import Observe
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.parts.controller_part import ControllerPart
from edgeloop_simulators.virtual.parts.devices_part import DevicesPart
from edgeloop_simulators.virtual.parts.exchange import Answer, Asked, Ending, Message
from edgeloop_simulators.virtual.parts.part_process import PartRun, RunForked, RunHere
from edgeloop_simulators.virtual.spec.world import WorldSpec
from edgeloop_simulators.virtual.world.database import database_directory

LINK_S: Final = 3.0
DEVICE_PARTS: Final = 2
"""Whatever runs them: another number is another trace."""

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Of the processes that ran devices, and of the controller's; bytes are by how much memory
    grew, at its peak."""

    devices_cpu_s: float
    devices_bytes: int
    controller_cpu_s: float
    controller_bytes: int


class WorldInParts:
    """`observers` are told what is seen of the controller and its operator. Without `processes` the
    parts run here, one after the other."""

    def __init__(
        self,
        spec: WorldSpec,
        seed: int,
        observers: Sequence[Observe] = (),
        *,
        processes: bool = True,
    ) -> None:
        self._spec, self._seed, self._observers = spec, seed, tuple(observers)
        self._run_part = RunForked if processes else RunHere
        self._part_of = {d.id: place % DEVICE_PARTS for place, d in enumerate(spec.devices)}
        self.cost: Cost | None = None
        """Once it has run, in processes."""

    def run(self) -> Outcome:
        with database_directory() as directory:
            controller = self._run_part(partial(ControllerPart, directory, self._spec, self._seed))
            devices: list[PartRun] = []
            try:
                devices += [
                    self._run_part(partial(DevicesPart, directory, spec, self._seed))
                    for spec in self._shares()
                ]
                self._play(controller, devices)
                of_devices = [run.ending() for run in devices]
                return self._outcome(controller.ending(), of_devices)
            finally:
                for run in (*devices, controller):
                    run.close()

    def _shares(self) -> list[WorldSpec]:
        rest = replace(self._spec, script=(), retraining=None)
        return [
            replace(rest, devices=self._spec.devices[place::DEVICE_PARTS])
            for place in range(DEVICE_PARTS)
        ]

    def _play(self, controller: PartRun, devices: Sequence[PartRun]) -> None:
        """Ask all, then wait for all: what one says in a step, the others hear in the next."""
        now_s, end_s = 0.0, self._spec.duration_s
        to_controller, to_devices = Asked(0.0), [Asked(0.0)] * DEVICE_PARTS
        while True:
            controller.ask(to_controller)
            for run, asked in zip(devices, to_devices, strict=True):
                run.ask(asked)
            said, answers = controller.answer(), [run.answer() for run in devices]
            self._tell(said)
            if now_s >= end_s or any(a.violations for a in (said, *answers)):
                return
            now_s = min(end_s, _next_s(now_s, end_s, (said, *answers)))
            to_controller = Asked(
                now_s,
                tuple(message for answer in answers for message in answer.messages),
                tuple(champion for answer in answers for champion in answer.champions),
            )
            to_devices = [
                Asked(now_s, messages, (), said.artifacts, said.behaviours)
                for messages in self._sorted(said.messages)
            ]

    def _sorted(self, messages: Sequence[Message]) -> list[tuple[Message, ...]]:
        """By the part that holds the device."""
        parts: list[list[Message]] = [[] for _ in range(DEVICE_PARTS)]
        for message in messages:
            parts[self._part_of[parse_down_topic(message[0]).device_id]].append(message)
        return [tuple(part) for part in parts]

    def _tell(self, answer: Answer) -> None:
        for observe in self._observers:
            for seen in answer.seen:
                observe(seen)

    def _outcome(self, controller: Ending, devices: Sequence[Ending]) -> Outcome:
        self.cost = Cost(
            devices_cpu_s=sum(ending.cpu_s for ending in devices),
            devices_bytes=sum(ending.grown_bytes for ending in devices),
            controller_cpu_s=controller.cpu_s,
            controller_bytes=controller.grown_bytes,
        )
        outcomes = [controller.outcome, *(ending.outcome for ending in devices)]
        ids = [device.id for device in self._spec.devices]
        return Outcome(
            seed=self._seed,
            trace_hash=_hash_of(outcomes),
            events=sum(one.events for one in outcomes),
            virtual_s=controller.outcome.virtual_s,
            violations=tuple(violation for one in outcomes for violation in one.violations),
            rollouts=controller.outcome.rollouts,
            champions=_in_order(ids, [one.champions for one in outcomes]),
            bytes_up=_in_order(ids, [one.bytes_up for one in outcomes]),
            bytes_down=_in_order(ids, [one.bytes_down for one in outcomes]),
            telemetry_stored=sum(one.telemetry_stored for one in outcomes),
            telemetry_lost=sum(one.telemetry_lost for one in outcomes),
            telemetry_duplicated=sum(one.telemetry_duplicated for one in outcomes),
        )


def _next_s(now_s: float, end_s: float, answers: Sequence[Answer]) -> float:
    """One step on; or further, while no part has anything to do."""
    if any(answer.messages for answer in answers):
        return now_s + LINK_S
    events = [answer.next_at_s for answer in answers if answer.next_at_s is not None]
    idle_s = min([end_s, *events]) - now_s
    return now_s + max(LINK_S, idle_s // LINK_S * LINK_S)


def _hash_of(outcomes: Sequence[Outcome]) -> str:
    traces = "".join(one.trace_hash for one in outcomes)
    return hashlib.blake2b(traces.encode(), digest_size=16).hexdigest()


def _in_order(ids: Sequence[str], found: Sequence[Mapping[str, T]]) -> dict[str, T]:
    merged = {key: value for one in found for key, value in one.items()}
    return {device_id: merged[device_id] for device_id in ids if device_id in merged}
