"""Who may connect to the broker: told to it by files, and enforced on who is connected (ADR 0033).

Invariants: a reconciler: what is due stands in the database (`cut_off_due`), so nothing is
forgotten by a crash or a broker that is away; a device counts as cut off once the broker has
*shown* that it refuses what is revoked, and its connection has been taken over; in this order, so
that it has no way back.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_controller.broker_files import writing
from edgeloop_controller.broker_files.names import CANARY
from edgeloop_controller.broker_probe import Shown, is_let_in
from edgeloop_controller.ca.authority import Authority, new_key
from edgeloop_controller.config import BrokerAccessConfig
from edgeloop_controller.core.enrolment import DeviceKey
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.store import events, identities
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.mqtt import BrokerAddress

logger = logging.getLogger(__name__)

RELOAD_TIMEOUT_S: Final = 10.0
IN_FORCE_WITHIN_S: Final = 4.0
ASK_AGAIN_S: Final = 0.05
PROBE_LIFETIME_S: Final = 300.0
SERVER_LOOK_S: Final = 3600.0
TELLING: Final = "telling the broker who may connect"


class _NotInForceError(Exception):
    """The broker does not refuse yet what it was told to refuse."""


@dataclass(frozen=True)
class _Wanted:
    revoked: Sequence[str]
    admitted: Sequence[DeviceKey]
    due: Sequence[str]


class BrokerAccess:
    def __init__(
        self,
        database: Database,
        open_authority: Callable[[], Authority],
        config: BrokerAccessConfig,
        address: BrokerAddress,
        scratch: Path,
        clock: Clock,
    ) -> None:
        """`scratch`: a directory that only we may read."""
        self._database = database
        self._open_authority = open_authority
        self._config = config
        self._address = address
        self._scratch = scratch
        self._clock = clock
        self._stale = threading.Event()
        self._stale.set()  # whatever happened while we were away
        self._looking = threading.Lock()
        self._failures = FailureLog(logger)
        self._has_failed = False
        self._told: tuple[object, ...] | None = None
        """mosquitto: the revoked certificates that it has shown to refuse; NATS: its users. None:
        it is not known what the broker goes by."""
        self._look_at_certificate_at = 0.0

    def changed(self) -> None:
        """Somebody was enrolled, or is over."""
        self._stale.set()

    def look(self) -> None:
        """Called each second, and more often at will."""
        with self._looking:
            self._renew_certificate()
            if not self._stale.is_set():
                return
            self._stale.clear()
            try:
                self._tell()
            except (OSError, subprocess.SubprocessError, _NotInForceError) as error:
                self._stale.set()
                self._told = None
                self._say_failed(error)
            else:
                self._has_failed = False
                self._failures.worked(TELLING)

    def _tell(self) -> None:
        now = self._clock.wall()
        with self._database.reading() as session:
            wanted = _Wanted(
                identities.revoked_serials(session, now),
                identities.admitted(session, now) if self._config.kind == "nats" else (),
                identities.to_be_cut_off(session),
            )
        if self._config.kind == "mosquitto":
            self._tell_mosquitto(wanted)
        else:
            self._tell_nats(wanted)

    def _tell_mosquitto(self, wanted: _Wanted) -> None:
        authority, revoked = self._open_authority(), tuple(wanted.revoked)
        if self._told != revoked:
            canary, serial = self._probe(authority, CANARY)
            self._wait_for_a_new_second()
            directory, now = self._config.directory, self._clock.wall()
            writing.write_crl(directory, authority, [*revoked, serial], now)
            self._reload()
            self._until(lambda: not self._is_let_in(authority, canary, CANARY), "the new crl.pem")
            self._told = revoked
        for device_id in wanted.due:
            shown, _ = self._probe(authority, device_id)
            if not self._is_let_in(authority, shown, device_id):
                raise _NotInForceError(f"the connection of {device_id} cannot be taken over")
            self._done(device_id)

    def _wait_for_a_new_second(self) -> None:
        """Of two lists of one second OpenSSL goes by the older one."""
        before = writing.crl_second(self._config.directory)
        if before is not None and before == int(self._clock.wall()):
            time.sleep(1.0)

    def _tell_nats(self, wanted: _Wanted) -> None:
        """It ends the connections of users that are gone; the probes show that they are."""
        authority, admitted = self._open_authority(), tuple(wanted.admitted)
        if self._told != admitted:
            writing.write_users(self._config.directory, admitted)
            self._reload()
            self._told = admitted
        for device_id in wanted.due:
            with self._database.reading() as session:
                over = identities.revoked_keys(session, device_id, self._clock.wall())
            for fingerprint in over:
                shown, _ = self._probe(authority, device_id, fingerprint)

                def refuses(shown: Shown = shown, device_id: str = device_id) -> bool:
                    return not self._is_let_in(authority, shown, device_id)

                self._until(refuses, f"that a key of {device_id} is over")
            self._done(device_id)

    def _probe(
        self, authority: Authority, name: str, known_by: str | None = None
    ) -> tuple[Shown, str]:
        """A certificate for one connection, and its serial; in no book: HTTP does not take it."""
        key, now = new_key(), self._clock.wall()
        life = (now - PROBE_LIFETIME_S, now + PROBE_LIFETIME_S)
        issued = authority.issue_client(name, key.public_key(), *life, known_by)
        return Shown.of(key, issued), issued.serial

    def _is_let_in(self, authority: Authority, shown: Shown, client_id: str) -> bool:
        trusted = authority.trusted_pem
        return is_let_in(self._address, trusted, shown, client_id, self._scratch)

    def _until(self, so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + IN_FORCE_WITHIN_S
        while not so():
            if time.monotonic() > deadline:
                raise _NotInForceError(
                    f"the broker has not taken {what} within {IN_FORCE_WITHIN_S:g} s: does "
                    "[broker.access] reload_command reload this broker, and can it read the files?"
                )
            time.sleep(ASK_AGAIN_S)

    def _reload(self) -> None:
        done = subprocess.run(
            self._config.reload_command,
            capture_output=True,
            check=False,
            timeout=RELOAD_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            said = done.stderr[-300:].decode(errors="replace").strip()
            raise OSError(f"reload_command ended with code {done.returncode}: {said}")

    def _renew_certificate(self) -> None:
        now = self._clock.monotonic()
        if now < self._look_at_certificate_at:
            return
        self._look_at_certificate_at = now + SERVER_LOOK_S
        files = writing.server_files(self._config.directory)
        try:
            if files.renew_if_due(self._open_authority(), self._clock.wall()):
                self._reload()
        except (OSError, subprocess.SubprocessError):
            self._failures.failed("renewing the broker's certificate")

    def _done(self, device_id: str) -> None:
        now = self._clock.wall()
        with self._database.writing() as session:
            identities.require_identity(session, device_id).cut_off_due = False
            events.add(session, now, "device.cut_off", device_id)
        logger.info("device %s is cut off from the broker", device_id)

    def _say_failed(self, error: Exception) -> None:
        self._failures.failed(TELLING)
        if self._has_failed:
            return
        self._has_failed = True
        detail = {"why": str(error)[:TEXT_MAX_CHARS]}
        with self._database.writing() as session:
            events.add(session, self._clock.wall(), "device.cut_off_failed", "", detail)
