"""What is told to the service manager (systemd, sd_notify): one datagram to NOTIFY_SOCKET.

Invariants: nothing is said where no manager listens; a manager that does not listen stops nobody;
`pet` is called by the supervisor's own loop after a whole turn and by nothing else, so that a
wedged loop is restarted; the variables are taken out of the environment, so that no runner can
speak for the agent.
"""

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final

from edgeloop_protocol.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 1.0
PETS_PER_TIMEOUT: Final = 4


class ServiceManager:
    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._pet_every_s = watchdog_s / PETS_PER_TIMEOUT if watchdog_s else None
        self._clock = clock or SystemClock()
        self._petted_at = float("-inf")
        self._status = ""

    @property
    def listens(self) -> bool:
        return bool(self._address)

    def ready(self) -> None:
        self._say("READY=1")

    def reloading(self) -> None:
        """Until `ready` is said again."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line; said when it differs from the last."""
        if text != self._status:
            self._status = text
            self._say(f"STATUS={text}")

    def pet(self) -> None:
        now = self._clock.monotonic()
        if self._pet_every_s is not None and now - self._petted_at >= self._pet_every_s:
            self._petted_at = now
            self._say("WATCHDOG=1")

    def _say(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(SEND_TIMEOUT_S)
                out.sendto(state.encode(), self._address)
        except OSError as error:
            logger.debug("the service manager does not listen: %s", error)


def from_environment(environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
    address = environment.pop("NOTIFY_SOCKET", None)
    watchdog_us = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", "")
    is_ours = pid in ("", str(os.getpid()))
    watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdecimal() and is_ours else None
    return ServiceManager(address, watchdog_s)
