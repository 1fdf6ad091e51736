"""The device's certificate is renewed at two thirds of its life, by a child process.

Invariants: called by the supervisor's own loop and never waits; this process imports no
`cryptography` (the child, `edgeloop_agent.enrolment.main renew`, does, and ends); a clock that
stands before the certificate's beginning asks for nothing; what fails is tried again, with jitter,
and never stops a model; the child ends within RENEWAL_TIMEOUT_S, and with this process.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeloop_agent.shell.certificate_dates import valid_between
from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.enrolment import renewal_at

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30.0
RENEWAL_TIMEOUT_S: Final = 120.0
RETRY_S_MIN: Final = 5.0
RETRY_S_MAX: Final = 3600.0
SPREAD_SHARE: Final = 0.02
"""Of its life: devices that were enrolled all at once do not renew all at once."""
WORDS_MAX_BYTES: Final = 400

Note = Callable[[str, str], None]
"""(name, detail) of an event for the controller."""


class Renewal:
    def __init__(
        self,
        config_path: Path,
        certificate: Path,
        clock: Clock,
        note: Note,
        jitter: Callable[[], float],
    ) -> None:
        self._command = (
            *(sys.executable, "-P", "-m", "edgeloop_agent.enrolment.main", "renew"),
            *("--config", str(config_path)),
        )
        self._certificate = certificate
        self._clock = clock
        self._note = note
        self._jitter = jitter
        self._spread = jitter() * SPREAD_SHARE
        self._child: subprocess.Popen[bytes] | None = None
        self._began_at = 0.0
        self._failures = 0
        self._look_at = 0.0
        self._is_asked = False

    def ask(self) -> str:
        """Somebody wants it now; what is answered to them."""
        self._is_asked, self._look_at = True, 0.0
        return "the certificate is being renewed"

    def turn(self) -> None:
        now = self._clock.monotonic()
        if self._child is not None:
            self._look_after(self._child, now)
        elif now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            if self._is_asked or self._is_due():
                self._is_asked = False
                self._begin(now)

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _is_due(self) -> bool:
        try:
            text = self._certificate.read_text(encoding="ascii", errors="replace")
            begins, ends = valid_between(text)
        except (OSError, ValueError, IndexError):
            return False  # not enrolled, or damaged: the doctor says so
        return self._clock.wall() >= renewal_at(begins, ends) + self._spread * (ends - begins)

    def _begin(self, now: float) -> None:
        try:
            # stdin stays open as long as this process lives: the child ends with it.
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ,
            )
            self._began_at = now
        except OSError as error:
            self._failed(now, f"it cannot be started: {error}")

    def _look_after(self, child: "subprocess.Popen[bytes]", now: float) -> None:
        code = child.poll()
        if code is None:
            if now - self._began_at > RENEWAL_TIMEOUT_S:
                self.stop()
                self._failed(now, f"no answer within {RENEWAL_TIMEOUT_S:g} s")
            return
        self._child = None
        _, said = child.communicate()
        if code == 0:
            self._failures = 0
            logger.info("the device's certificate is renewed")
            self._note("certificate_renewed", "")
            return
        words = said[-WORDS_MAX_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]
        self._failed(now, words or f"it ended with code {code}")

    def _failed(self, now: float, why: str) -> None:
        self._failures += 1
        wait_s = backoff_s(self._failures, self._jitter(), RETRY_S_MIN, RETRY_S_MAX)
        self._look_at = now + wait_s
        logger.warning(
            "the device's certificate is not renewed: %s; trying again in %.0f s", why, wait_s
        )
        if self._failures == 1:
            self._note("certificate_not_renewed", why)
