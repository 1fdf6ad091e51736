"""The doctor's checks of what is reached over the network: broker, controller, TLS."""

import socket
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_agent.shell import doctor_tls
from edgeloop_agent.shell.finding import Finding, failed, fine, warning
from edgeloop_agent.shell.http_source import get_headers
from edgeloop_agent.shell.lock import is_locked
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls import FreshContext
from edgeloop_protocol.tls_config import TlsConfig

ANSWER_TIMEOUT_S: Final = 8.0
CLOCK_APART_S_MAX: Final = 60.0


class _Listener:
    def __init__(self) -> None:
        self.heard = threading.Event()
        self.reason: str | None = None

    def connected(self) -> None:
        self.heard.set()

    def disconnected(self, reason: str) -> None:
        self.reason = reason
        self.heard.set()

    def message(self, topic: str, payload: bytes) -> None:
        """Nothing is subscribed to."""


def broker(config: AgentConfig, clock: Clock) -> Iterator[Finding]:
    """By a client id of its own: the device's would end the connection of an agent that runs."""
    address = BrokerAddress(
        config.broker.host,
        config.broker.port,
        config.broker.username,
        config.broker.password,
        config.broker_tls,
    )
    if config.broker_tls is not None:
        yield from doctor_tls.files(config.broker_tls, clock)
        shown = config.broker_tls.certificate_path
        if shown is not None and is_locked(Path(config.state_dir)):
            yield _handshake(address, config.broker_tls)
            return
    listener = _Listener()
    connection = PahoBroker(address, client_id=f"{config.device_id}-doctor", subscriptions=())
    connection.start(listener)
    try:
        listener.heard.wait(ANSWER_TIMEOUT_S)
    finally:
        connection.stop()
    if not listener.heard.is_set():
        yield failed(
            "broker",
            f"{address} does not answer within {ANSWER_TIMEOUT_S:g} s",
            "check host and port in [broker], the route and the firewall",
        )
        return
    problem = connection.tls_problem
    if problem is not None:
        yield failed(doctor_tls.NAME, f"{address}: {problem.words}", problem.mend)
    elif listener.reason is not None:
        plain = "; where it speaks TLS on that port, set [broker] tls"
        yield failed(
            "broker",
            listener.reason,
            "start the broker, or correct host, port, username and password in [broker]"
            + ("" if config.broker_tls else plain),
        )
    else:
        if config.broker_tls is not None:
            yield fine(doctor_tls.NAME, "the broker's certificate is valid, and ours is accepted")
        yield fine("broker", f"{address} accepts a connection")


def _handshake(address: BrokerAddress, tls: TlsConfig) -> Finding:
    """And no more: a broker that takes the certificate's name for the client id would end the
    connection of the agent that runs here."""
    context = FreshContext(tls)
    try:
        with socket.create_connection((address.host, address.port), ANSWER_TIMEOUT_S) as plain:
            context.wrap_socket(plain, server_hostname=address.host).close()
    except OSError as error:
        problem = context.problem
        if problem is not None:
            return failed(doctor_tls.NAME, f"{address}: {problem.words}", problem.mend)
        mend = "start the broker, or correct host and port in [broker]"
        return failed("broker", f"no broker answers at {address}: {error}", mend)
    return fine(
        doctor_tls.NAME,
        "the broker's certificate is valid; whether ours is accepted, `edgeloop-agent status` of "
        "the agent that runs here says",
    )


def controller(config: AgentConfig, clock: Clock) -> Iterator[Finding]:
    url = f"{config.controller_url.rstrip('/')}/v1/health"
    is_tls = url.startswith("https://")
    try:
        status, headers = get_headers(url, config.http_tls)
    except FetchUnreachableError as error:
        name = "tls" if "certificate" in str(error) else "controller"
        yield failed(
            name,
            str(error),
            "correct the clock, or install the authority that signed the controller's certificate"
            if name == "tls"
            else "start the controller, or correct controller_url",
        )
        return
    if is_tls:
        yield fine("tls", "the controller's certificate is valid")
    if status != 200:
        yield failed(
            "controller",
            f"{url} answered {status}: this is no healthy Edgeloop controller",
            "correct controller_url, or look into the controller's log",
        )
        return
    yield fine("controller", f"{config.controller_url} answers")
    apart_s = _apart_s(headers.get("date", ""), clock.wall())
    if apart_s is not None and abs(apart_s) > CLOCK_APART_S_MAX:
        ahead = "ahead of" if apart_s > 0 else "behind"
        yield warning(
            "clock",
            f"this device's clock is {abs(apart_s):.0f} s {ahead} the controller's",
            "run an NTP client on both",
        )


def _apart_s(date: str, now: float) -> float | None:
    try:
        return now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
