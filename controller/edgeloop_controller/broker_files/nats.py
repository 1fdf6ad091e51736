"""NATS' files. Pure text.

Invariants: a client is what its certificate names (`verify_and_map`) on each port; a device's key
is a user of its own that may publish and subscribe to the device's topics only, so a key that is
not in the file of users cannot connect, whatever certificates there still are of it.

What NATS does not do: bind an MQTT client id to a user. A device that connects by another's client
id ends the other's session, though it reads and writes nothing of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgeloop_controller.broker_files.names import (
    CA,
    CONTROLLER,
    SERVER_CERTIFICATE,
    SERVER_KEY,
)
from edgeloop_controller.core.enrolment import DeviceKey, key_uri
from edgeloop_protocol.limits import KIB, PAYLOAD_MAX_BYTES
from edgeloop_protocol.topics import PREFIX

CONFIGURATION: Final = "nats.conf"
USERS: Final = "users.conf"
PID: Final = "nats.pid"
ANY: Final = "0.0.0.0"  # noqa: S104 - devices come from elsewhere, by certificate
MESSAGE_MAX_BYTES: Final = PAYLOAD_MAX_BYTES + 8 * KIB
_SUBJECTS: Final = PREFIX.replace("/", ".")
_QOS_1: Final = "$MQTT.sub.*"
"""Where JetStream brings what is for a subscription of QoS 1. One level: of `$MQTT.sub.>` a device
could make a filter of its own."""


def configuration_text(
    directory: Path, port: int, address: str | None, client_port: int, name: str
) -> str:
    tls = f"""\
{{
    cert_file: "{directory / SERVER_CERTIFICATE}"
    key_file: "{directory / SERVER_KEY}"
    ca_file: "{directory / CA}"
    verify_and_map: true
    timeout: 10
  }}"""
    return f"""\
# Written by `edgeloop broker config nats`; run it again to change it.
server_name: "{name}"
# NATS' own protocol: for this machine, by certificate too.
listen: "127.0.0.1:{client_port}"
tls: {tls}
pid_file: "{directory / PID}"
max_payload: {MESSAGE_MAX_BYTES}
jetstream: {{ store_dir: "{directory / "jetstream"}", max_file_store: 1G, max_memory_store: 64M }}
mqtt: {{
  listen: "{address or ANY}:{port}"
  tls: {tls}
  ack_wait: "30s"
  max_ack_pending: 1000
  reject_qos2_publish: true
}}
# Who may connect: written anew by the controller when a device is enrolled or revoked.
include "{USERS}"
"""


def users_text(keys: Iterable[DeviceKey]) -> str:
    lines = [_user(f"CN={CONTROLLER}", f"{_SUBJECTS}.*.down.*", f"{_SUBJECTS}.*.up.*")]
    lines += [
        _user(
            key_uri(one.fingerprint),
            f"{_SUBJECTS}.{one.device_id}.up.*",
            f"{_SUBJECTS}.{one.device_id}.down.*",
        )
        for one in keys
    ]
    return "authorization: { timeout: 10, users: [\n" + "\n".join(lines) + "\n] }\n"


def _user(name: str, publish: str, subscribe: str) -> str:
    allowed = f'publish: ["{publish}"], subscribe: ["{subscribe}", "{_QOS_1}"]'
    return f'  {{ user: "{name}", permissions: {{ {allowed} }} }}'
