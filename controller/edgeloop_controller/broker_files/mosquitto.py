"""mosquitto's files. Pure text.

Invariants: who a client is, and its client id, is the CN of its certificate and nothing that it
says; one pattern isolates all devices; a message above the wire's limit is refused by the broker
too.
"""

from pathlib import Path
from typing import Final

from edgeloop_controller.broker_files.names import (
    CA,
    CONTROLLER,
    CRL,
    SERVER_CERTIFICATE,
    SERVER_KEY,
)
from edgeloop_protocol.limits import KIB, PAYLOAD_MAX_BYTES
from edgeloop_protocol.topics import PREFIX

CONFIGURATION: Final = "mosquitto.conf"
ACL: Final = "acl"
PID: Final = "mosquitto.pid"
PACKET_MAX_BYTES: Final = PAYLOAD_MAX_BYTES + 4 * KIB

ACL_TEXT: Final = f"""\
# Written by `edgeloop broker config mosquitto`. %u is the CN of a client's certificate.
pattern write {PREFIX}/%u/up/+
pattern read {PREFIX}/%u/down/+

user {CONTROLLER}
topic read {PREFIX}/+/up/+
topic write {PREFIX}/+/down/+
"""


def configuration_text(directory: Path, port: int, address: str | None, user: str | None) -> str:
    """`address` None: all; `user`: whom it becomes when root starts it; None: its default."""
    listener = f"listener {port} {address}" if address else f"listener {port}"
    become = f"user {user}\n" if user else ""
    return f"""\
# Written by `edgeloop broker config mosquitto`; run it again to change it.
# Everything here must be readable by the user that mosquitto runs as, {SERVER_KEY} by no other.
{become}per_listener_settings false
{listener}
allow_anonymous false

# A client is the CN of its certificate: as user, and as client id, whatever it says.
cafile {directory / CA}
certfile {directory / SERVER_CERTIFICATE}
keyfile {directory / SERVER_KEY}
crlfile {directory / CRL}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
tls_version tlsv1.2
acl_file {directory / ACL}
pid_file {directory / PID}

# Nothing in Edgeloop rests on what a broker keeps (DESIGN 3).
persistence false
retain_available false
persistent_client_expiration 1d
# A finite number silently loses messages that were acknowledged (DESIGN 7).
max_queued_messages 0
max_inflight_messages 100
max_packet_size {PACKET_MAX_BYTES}
max_keepalive 300
set_tcp_nodelay true
log_type error
log_type warning
log_type notice
"""
