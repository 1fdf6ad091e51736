"""Drives one supervisor from one thread, from a bounded queue, until a stop is requested.

Invariants: a signal waits POLL_S at most; the service manager's watchdog is petted after each whole
turn, by nothing else; every runner ends, killed if need be; what runners and controller say
meanwhile is still taken.
"""

from collections.abc import Callable
from typing import Final

from edgeloop_agent.ports import DownlinkMessage, RunnerHost, RunnerSaid
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.renewal import Renewal
from edgeloop_agent.shell.service_manager import ServiceManager
from edgeloop_agent.shell.status import in_one_line
from edgeloop_agent.shell.supervisor import Supervisor
from edgeloop_protocol.clock import Clock

POLL_S: Final = 0.5
"""How long a stop signal may wait: its handler can only set a flag."""
STOP_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 2.0


def _nothing_to_reload() -> None:
    pass


class RunLoop:
    def __init__(
        self,
        supervisor: Supervisor,
        inbox: Inbox,
        host: RunnerHost,
        clock: Clock,
        manager: ServiceManager | None = None,
        reload: Callable[[], None] = _nothing_to_reload,
        renewal: Renewal | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._inbox = inbox
        self._host = host
        self._clock = clock
        self._manager = manager or ServiceManager()
        self._reload = reload
        self._renewal = renewal
        self._reload_requested = False
        self._stop_requested = False

    def request_stop(self) -> None:
        """May be called from a signal handler: it only sets a flag."""
        self._stop_requested = True

    def request_reload(self) -> None:
        """May be called from a signal handler."""
        self._reload_requested = True

    def run(self) -> None:
        """Until a stop is requested."""
        self._supervisor.begin()
        self._manager.ready()
        try:
            while not self._stop_requested:
                self.turn()
        finally:
            self.stop()

    def turn(self) -> None:
        if self._reload_requested:
            self._reload_requested = False
            self._manager.reloading()
            self._reload()
            self._manager.ready()
        for item in self._inbox.take(self._timeout_s()):
            self._supervisor.take(item)
        self._supervisor.turn()
        if self._renewal is not None:
            self._renewal.turn()
        self._manager.pet()
        if self._manager.listens:
            self._manager.status(in_one_line(self._supervisor.device))

    def stop(self) -> None:
        """The runners' last windows still go into the outbox; they are sent after the restart."""
        self._manager.stopping()
        self._supervisor.close()
        if self._renewal is not None:
            self._renewal.stop()
        for kill, grace_s in ((False, STOP_GRACE_S), (True, KILL_GRACE_S)):
            deadline = self._clock.monotonic() + grace_s
            self._host.stop_all(kill)
            while self._host.alive() and self._clock.monotonic() < deadline:
                self._keep_telemetry(0.1)
        self._keep_telemetry(0.0)
        self._supervisor.end()

    def _timeout_s(self) -> float:
        wake = self._supervisor.next_wake()
        if wake is None:
            return POLL_S
        return max(0.0, min(POLL_S, wake - self._clock.monotonic()))

    def _keep_telemetry(self, timeout_s: float) -> None:
        for item in self._inbox.take(timeout_s):
            if isinstance(item, RunnerSaid | DownlinkMessage):
                self._supervisor.take(item)
