"""The controller in the virtual world: the real services on a real database, killed and restarted.

Invariants: what production builds is built by production's own `composition.build`; the database
and the artifacts outlive a kill, nothing else does; a kill comes before a commit or before a
message, wherever the fault says. An exception that leaves a service is a death of its own kind,
which no invariant allows.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import event

from edgeloop_controller.composition import Parts, build
from edgeloop_controller.config import ControllerConfig, DriftConfig, RetrainingConfig
from edgeloop_controller.services.candidate import Candidates
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.mqtt import BrokerListener
from edgeloop_protocol.topics import EVERY_DEVICE_UP
from edgeloop_simulators.twins.artifact_store import MemoryArtifactStore
from edgeloop_simulators.virtual.controller.executor import NO_TRAINING
from edgeloop_simulators.virtual.controller.record import ControllerRecord
from edgeloop_simulators.virtual.controller.retraining import RetrainingHost
from edgeloop_simulators.virtual.kernel.clock import VirtualClock
from edgeloop_simulators.virtual.kernel.loop import EventLoop, Timer
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import ControllerTiming

logger = logging.getLogger(__name__)

CLIENT_ID: Final = "edgeloop-controller"
PLACE: Final = Place("controller")
KINDS: Final = frozenset({FaultKind.CONTROLLER_KILL, FaultKind.CONTROLLER_FAILOVER})
RAISED: Final = "an exception that nobody expected"


class ControllerKilled(BaseException):
    """kill -9 in the middle of something."""


class ControllerWatcher(Protocol):
    """Who looks at what the controller does; `said` comes before the message leaves."""

    def said(self, host: "ControllerHost", topic: str, payload: bytes) -> None: ...

    def controller_touched(self, host: "ControllerHost") -> None: ...


class ControllerClient(Protocol):
    """Its end of the broker."""

    def start(self, listener: BrokerListener) -> None: ...

    def publish(self, topic: str, payload: bytes) -> bool: ...

    def crash(self) -> None: ...


class ControllerNetwork(Protocol):
    def client(
        self,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None,
        place: Place,
    ) -> ControllerClient: ...


class ControllerHost:
    """`directory` holds a migrated `edgeloop.sqlite`."""

    def __init__(
        self,
        directory: Path,
        loop: EventLoop,
        network: ControllerNetwork,
        observe: Observe,
        timing: ControllerTiming,
        starts_at_wall_s: float,
        watcher: ControllerWatcher,
        retraining: RetrainingHost | None = None,
    ) -> None:
        self.record = ControllerRecord(directory / "edgeloop.sqlite")
        self.artifacts = MemoryArtifactStore()
        self.parts: Parts | None = None
        """None while it is down."""
        self.raised = ""
        """What an unexpected exception was, in words."""
        self.has_news = False
        """Whether anything was committed that the laws have not been held against."""
        self.reads_every_commit = timing.laws_every_s == 0
        self._unread = False
        self._read_at_s = 0.0
        self._config = ControllerConfig(
            data_dir=directory,
            offline_after_s=timing.offline_after_s,
            limits=timing.limits,
            drift=DriftConfig(enabled=timing.drift_s is not None),
            retraining=retraining.config(directory) if retraining else RetrainingConfig(),
        )
        self._loop = loop
        self._network = network
        self._observe = observe
        self._timing = timing
        self._clock = VirtualClock(loop, starts_at_wall_s)
        self._retraining = retraining
        self._watcher = watcher
        self._database: Database | None = None
        self._client: ControllerClient | None = None
        self._timers: dict[str, Timer] = {}
        self._armed: dict[Fault, int] = {}
        self._operations = 0

    @property
    def is_up(self) -> bool:
        return self.parts is not None

    def stored(self, digest: str) -> bytes | None:
        """What its HTTP serves; None while it is down."""
        if self.parts is None or not self.artifacts.has(digest):
            return None
        return self.artifacts.get(digest)

    # ---- life and death -------------------------------------------------------------------------

    def start(self) -> None:
        if self.parts is None:
            self._run(self._start)

    def begin(self, fault: Fault) -> None:
        if fault.amount:
            self._armed[fault] = self._operations + int(fault.amount)
        else:
            self._die(fault.kind.value)
            self._come_back(fault)

    def end(self, fault: Fault) -> None:
        self._armed.pop(fault, None)
        self.start()

    def close(self) -> None:
        """The world ends."""
        self._forget()
        self.record.close()

    def run(self, action: Callable[[Parts], None]) -> bool:
        """Something that a person does; False when it died of it, or is down."""
        parts = self.parts
        if parts is None:
            return False
        self._run(lambda: action(parts))
        return self.parts is parts

    def go_on(self, action: Callable[[], None]) -> None:
        """What it was in the midst of, after a pause."""
        self._run(action)

    def _start(self) -> None:
        database = Database(self._config.database, migrate=False, durable=False)
        event.listen(database.engine, "commit", lambda _connection: self._operation())
        client = self._network.client(CLIENT_ID, (EVERY_DEVICE_UP,), None, PLACE)
        self._database, self._client = database, client
        outbound = _Outbound(self, client)
        retraining = self._retraining
        self.parts = build(
            self._config,
            database,
            outbound,
            self._clock,
            self.artifacts,
            retraining.executor if retraining else NO_TRAINING,
            make_candidates=retraining.make_candidates if retraining else Candidates,
        )
        self._see("controller.started")
        client.start(self)
        self._every("tick", self._timing.tick_s, self.parts.reconciler.tick)
        services = self.parts.services
        if self._timing.drift_s is not None:
            self._every("drift", self._timing.drift_s, services.drift_watch.look)
        if retraining is not None:
            retraining.attach(self.parts)
        if retraining is not None and self._timing.retrain_s is not None:
            self._every("retraining", self._timing.retrain_s, retraining.tick)

    def _die(self, why: str, detail: str = "") -> None:
        if self.parts is None:
            return
        self._see("controller.died", why=why, detail=detail)
        client = self._client
        self._forget()
        if client is not None:
            client.crash()

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._retraining is not None:
            self._retraining.killed()
        if self._database is not None:
            self._database.close()
        self.parts = self._database = self._client = None

    def _come_back(self, fault: Fault) -> None:
        """After a kill in its time, after a failover at once: another one had waited for that."""
        wait_s = 0.0 if fault.kind is FaultKind.CONTROLLER_FAILOVER else fault.duration_s
        self._loop.call_in(wait_s, self.start)

    def _run(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except ControllerKilled as killed:
            fault = killed.args[0]
            self._die(fault.kind.value)
            self._come_back(fault)
        except Exception as error:
            logger.exception("the controller raised")
            self.raised = repr(error)
            self._die(RAISED, repr(error))
            self._loop.call_in(1.0, self.start)
        has_changed = self.record.has_changed()
        self._unread |= has_changed
        self.has_news = self._unread and self._loop.now_s >= self._read_at_s
        for news in self.record.news(self.has_news) if has_changed or self.has_news else ():
            self._see(news.what, **news.data)
        if self.has_news:
            self._unread, self._read_at_s = False, self._loop.now_s + self._timing.laws_every_s
        self._watcher.controller_touched(self)

    def _operation(self) -> None:
        """Before each commit and each message."""
        self._operations += 1
        for fault, at in self._armed.items():
            if self._operations >= at:
                del self._armed[fault]
                raise ControllerKilled(fault)

    # ---- its timers and its inbox ---------------------------------------------------------------

    def _every(self, name: str, interval_s: float, work: Callable[[], Any]) -> None:
        parts = self.parts

        def due() -> None:
            self._run(work)
            if self.parts is parts:
                self._timers[name] = self._loop.call_in(interval_s, due)

        self._timers[name] = self._loop.call_in(interval_s, due)

    def connected(self) -> None:
        if self.parts is not None:
            self.parts.services.listener.connected()

    def disconnected(self, reason: str) -> None:
        if self.parts is not None:
            self.parts.services.listener.disconnected(reason)

    def message(self, topic: str, payload: bytes) -> None:
        if self.parts is None:
            return
        self.parts.services.listener.message(topic, payload)
        if "ingest" not in self._timers:
            self._timers["ingest"] = self._loop.call_in(self._timing.ingest_s, self._ingest)

    def _ingest(self) -> None:
        del self._timers["ingest"]
        if self.parts is not None:
            self._run(self.parts.services.ingest.work)

    @property
    def inbox_size(self) -> int:
        return len(self.parts.services.inbox) if self.parts is not None else 0

    @property
    def inbox_max(self) -> int:
        return self._config.limits.inbox_max_messages

    def say(self, client: ControllerClient, topic: str, payload: bytes) -> bool:
        self._operation()
        self._watcher.said(self, topic, payload)
        return client.publish(topic, payload)

    def _see(self, what: str, /, **data: Any) -> None:
        self._observe(Seen(self._loop.now_s, "controller", what, data))


class _Outbound:
    def __init__(self, host: ControllerHost, client: ControllerClient) -> None:
        self._host = host
        self._client = client

    def publish(self, topic: str, payload: bytes) -> bool:
        return self._host.say(self._client, topic, payload)
