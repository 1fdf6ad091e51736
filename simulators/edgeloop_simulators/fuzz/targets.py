"""What is fuzzed: a name → what takes bytes of a stranger, and bytes of friends to begin with.

Invariants: a target lets pass only the error that the decoder promises; whatever else is raised is
a finding, and so is a law that does not hold (what was decoded is encoded and decoded the same).
"""

import io
from base64 import encodebytes
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from edgeloop_agent.core.journal_document import decode_journal, encode_journal, seal
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.enrolment.keys import DeviceKey
from edgeloop_agent.errors import JournalDamagedError
from edgeloop_controller.ca.requests import check_renewal, read_certificate, read_csr
from edgeloop_controller.errors import PackagingError, RefusedInputError
from edgeloop_controller.packaging.draft import load_draft
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol import messages, selector, topics
from edgeloop_protocol.device_facts import UNKNOWN
from edgeloop_protocol.errors import (
    ManifestError,
    MessageError,
    PatchError,
    SelectorError,
    TopicError,
)
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.manifest import parse_manifest
from edgeloop_protocol.messages import Inventory, SlotReported, Wire
from edgeloop_protocol.tensor_patch import apply_tensor_patch
from edgeloop_simulators.errors import SimulatorError

RESULT_MAX_BYTES: Final = 4096
INPUT_MAX_BYTES: Final = 4096


class FindingError(SimulatorError):
    """A law that does not hold."""


@dataclass(frozen=True)
class Target:
    takes: Callable[[bytes], object]
    seeds: Sequence[bytes]


@dataclass(frozen=True)
class _Device:
    id: str = "watch-3"
    labels: Mapping[str, str] = field(default_factory=lambda: {"site": "lab"})
    online: bool = True
    quarantine: str = ""
    inventory: Inventory = UNKNOWN
    slots: Mapping[str, SlotReported] = field(default_factory=dict)


def _selector(data: bytes) -> None:
    try:
        found = selector.parse(data.decode("utf-8", "replace"))
    except SelectorError:
        return
    found.matches(_Device())
    _same(selector.parse(str(found)), found)


def _message(data: bytes) -> None:
    """The first byte chooses which message it is to be."""
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    try:
        found = messages.decode(kind, data[1:])
    except MessageError:
        return
    try:
        encoded = messages.encode(found)
    except MessageError:
        return  # a document may be longer in our spelling than it came
    _same(messages.decode(kind, encoded), found)


def _topic(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (topics.parse_up_topic, topics.parse_down_topic):
        try:
            found: Any = parse(text)
        except TopicError:
            continue
        again = topics.up_topic if parse is topics.parse_up_topic else topics.down_topic
        _same(again(found.device_id, found.kind), text)


def _manifest(data: bytes) -> None:
    try:
        found = parse_manifest(data)
    except (ManifestError, MessageError):
        return
    _same(parse_manifest(found.canonical()), found)


def _model_toml(data: bytes) -> None:
    try:
        load_draft(data.decode("utf-8", "replace"), "fuzzed")
    except PackagingError:
        return


def _journal(data: bytes) -> None:
    """Sealed, so that it gets past its SHA-256; and as it is."""
    for document in (data, seal(data)) if data else (data,):
        try:
            found = decode_journal(document)
        except JournalDamagedError:
            continue
        _same(decode_journal(encode_journal(found)), found)


def _delta(data: bytes) -> None:
    result = bytearray()
    with suppress(PatchError):
        apply_tensor_patch(io.BytesIO(BASE), io.BytesIO(data), result.extend, RESULT_MAX_BYTES)
    if len(result) > RESULT_MAX_BYTES:
        raise FindingError(f"{len(result)} bytes of a result of {RESULT_MAX_BYTES}")


def _enrolment(data: bytes) -> None:
    """A request as DER, the same bytes as a certificate, and as a signature of either."""
    csr = None
    with suppress(RefusedInputError):
        csr = read_csr(_pem("CERTIFICATE REQUEST", data))
    with suppress(RefusedInputError):
        shown = read_certificate(_pem("CERTIFICATE", data))
        check_renewal(csr or _KNOWN_CSR, shown, data[:72])
    with suppress(RefusedInputError):
        read_csr(data.decode("utf-8", "replace"))


def _pem(kind: str, der: bytes) -> str:
    body = encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n"


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise FindingError(f"{found!r} is not {expected!r}")


KINDS: Final[Sequence[type[Wire]]] = (
    messages.Hello,
    messages.Reported,
    messages.Presence,
    messages.TelemetryBatch,
    messages.Response,
    messages.Desired,
    messages.Ack,
    messages.Said,
    messages.Request,
)

BASE: Final = bytes(range(256)) * (RESULT_MAX_BYTES // 256)
_KNOWN_CSR: Final = read_csr(DeviceKey().csr("watch-3").pem)
_NEW: Final = bytes((byte + 3) % 256 if n % 97 == 0 else byte for n, byte in enumerate(BASE))
_HELLO: Final = b'{"epoch":"00000000000000be","revision":0,"inventory":{},"labels":{}}'

TARGETS: Final[Mapping[str, Target]] = {
    "selector": Target(
        _selector,
        (
            b"site=plant-3, arch in (aarch64, x86_64), !quarantine, model.watch<2.1",
            b'all, key != "a \\" b", memory>=512MB, x not in (1,2)',
        ),
    ),
    "message": Target(
        _message,
        (
            b"\x00" + _HELLO,
            b'\x03{"epoch":"00000000000000be","base":1,"records":[]}',
            b'\x05{"revision":1,"slots":[]}',
        ),
    ),
    "topic": Target(_topic, (b"edgeloop/v1/watch-3/up/hello", b"edgeloop/v1/watch-3/down/desired")),
    "manifest": Target(_manifest, (b'{"name":"watch","version":"1","artifact":{"sha256":""}}',)),
    "model-toml": Target(
        _model_toml, (b'features = ["a"]\nlabels = ["x", "y"]\n[requires]\nmemory_bytes = 1\n',)
    ),
    "journal": Target(_journal, (encode_journal(DeviceSnapshot()), b'{"slots":{}}')),
    "enrolment": Target(_enrolment, (_KNOWN_CSR.der, _KNOWN_CSR.der[:60])),
    "delta": Target(_delta, (make_tensor_patch(BASE, _NEW), make_tensor_patch(BASE, _NEW)[:40])),
}

assert PAYLOAD_MAX_BYTES > INPUT_MAX_BYTES
