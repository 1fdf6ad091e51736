"""When the faults of a world begin and end, and who is told.

Invariant: each fault is told to all whom it hits, in the order of the devices, at its beginning and
at its end; those that spoil a model are in its behaviour from the beginning and not here.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from edgeloop_simulators.virtual.controller import host as controller_host
from edgeloop_simulators.virtual.device import artifact_server
from edgeloop_simulators.virtual.device.host import DeviceHost
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.models import faults as model_faults
from edgeloop_simulators.virtual.spec.faults import OF_THE_NETWORK, Fault


class Faulty(Protocol):
    """What a fault can befall."""

    def begin(self, fault: Fault) -> None: ...

    def end(self, fault: Fault) -> None: ...


class FaultPlan:
    def __init__(
        self,
        loop: EventLoop,
        observe: Observe,
        network: Faulty,
        artifacts: Faulty,
        controller: Faulty,
        hosts: Mapping[str, DeviceHost],
    ) -> None:
        self._loop = loop
        self._observe = observe
        self._network, self._artifacts, self._controller = network, artifacts, controller
        self._hosts = hosts

    def plan(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            if fault.kind not in model_faults.KINDS:
                self._loop.call_at(fault.at_s, partial(self._begin, fault))
                self._loop.call_at(fault.at_s + fault.duration_s, partial(self._end, fault))

    def _begin(self, fault: Fault) -> None:
        self._tell("fault.begins", fault)
        for hit in self._hit(fault):
            hit.begin(fault)

    def _end(self, fault: Fault) -> None:
        self._tell("fault.ends", fault)
        for hit in self._hit(fault):
            hit.end(fault)

    def _tell(self, what: str, fault: Fault) -> None:
        self._observe(Seen(self._loop.now_s, "world", what, {"fault": str(fault)}))

    def _hit(self, fault: Fault) -> Iterator[Faulty]:
        if fault.kind in OF_THE_NETWORK:
            yield self._network
        elif fault.kind in artifact_server.KINDS:
            yield self._artifacts
        elif fault.kind in controller_host.KINDS:
            yield self._controller
        else:
            for host in self._hosts.values():
                if fault.hits(host.place.name, host.place.site, host.place.kind):
                    yield host
