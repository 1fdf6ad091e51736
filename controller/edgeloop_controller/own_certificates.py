"""What the controller is known by: its certificate at the broker, and that of its listener.

Invariants: made at the start by our own authority where none is configured, looked at each
RENEWAL_LOOK_S; whoever connects reads the files anew (protocol.tls), so a renewal needs no restart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.broker_files.names import CONTROLLER
from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.own_certificates import ClientFile
from edgeloop_controller.ca.secret_files import write_file
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.http_tls import HttpTls, listening_tls
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.tls_config import TlsConfig

RENEWAL_LOOK_S: Final = 3600.0


@dataclass(frozen=True)
class OwnCertificates:
    broker_tls: TlsConfig | None
    http_tls: HttpTls | None
    renew: Callable[[], None]


def own_certificates(
    config: ControllerConfig, open_authority: Callable[[], Authority], clock: Clock
) -> OwnCertificates:
    """The authority is opened only if something here needs it. Raises StartError."""
    client, broker_tls = None, None
    now = clock.wall()
    if config.broker.access is not None and config.broker.tls is None:
        authority = open_authority()
        client = ClientFile(config.ca_dir / "controller.pem", CONTROLLER)
        client.keep(authority, now)
        trusted = config.ca_dir / "trusted.pem"
        write_file(trusted, authority.trusted_pem.encode(), 0o644)
        broker_tls = TlsConfig(ca_path=trusted, certificate_path=client.path)
    http_tls = None
    if config.http.tls is not None:
        http_tls = listening_tls(config.http, config.http.tls, config.ca_dir, open_authority(), now)

    def renew() -> None:
        if client is not None:
            client.keep(open_authority(), clock.wall())
        if http_tls is not None:
            http_tls.renew_if_due(open_authority(), clock.wall())

    return OwnCertificates(broker_tls, http_tls, renew)
