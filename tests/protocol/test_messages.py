"""Messages: what decodes is valid, what is not is one MessageError (EL-MSG-1 … EL-MSG-3)."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_protocol.errors import MessageError
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    Ack,
    Comparison,
    Desired,
    DeviceEvent,
    Hello,
    Offer,
    Patch,
    Presence,
    Record,
    Reduced,
    Reported,
    Said,
    SlotDesired,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode,
    encode_telemetry,
)

EPOCH = "0123456789abcdef"
TYPES = [Hello, Reported, TelemetryBatch, Presence, Desired, Ack]


def _record(sequence: int, detail: str = "") -> Record:
    return Record(sequence=sequence, body=DeviceEvent(at=1.5, name="started", detail=detail))


@given(st.binary(max_size=200))
@pytest.mark.parametrize("message_type", TYPES)
def test_any_bytes_decode_or_raise_a_message_error(message_type: type, payload: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode(message_type, payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["epoch", "through", "kind", "records", "slots"]), json_values)
)
@pytest.mark.parametrize("message_type", TYPES)
def test_any_json_decodes_or_raises_a_message_error(message_type: type, document: dict) -> None:
    with contextlib.suppress(MessageError):
        decode(message_type, json.dumps(document).encode())


bodies = st.builds(
    DeviceEvent,
    at=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text("abc", min_size=1, max_size=9),
    slot=st.none() | st.just("main"),
    detail=st.text(max_size=20),
)


@given(
    st.integers(1, 2**40),
    st.lists(bodies, min_size=1, max_size=5),
    st.none() | st.builds(Said, epoch=st.just(EPOCH), sequence=st.integers(0, 2**40)),
    st.none() | st.builds(Reduced, samples_dropped=st.integers(0, 2**40)),
)
def test_telemetry_of_encoded_bodies_is_what_encode_makes(
    base: int, records: list[DeviceEvent], said: Said | None, reduced: Reduced | None
) -> None:
    numbered = tuple(Record(sequence=n, body=body) for n, body in enumerate(records, base))
    batch = TelemetryBatch(epoch=EPOCH, said=said, base=base, reduced=reduced, records=numbered)
    documents = [body.model_dump_json().encode() for body in records]
    assert encode_telemetry(EPOCH, base, documents, said, reduced) == encode(batch)


def test_who_merged_and_dropped_nothing_sends_what_was_always_sent() -> None:
    """EL-MSG-3, EL-TEL-8: an older controller sees no new key before there is need."""
    window = WindowSummary(
        slot="main",
        version=VersionRef(name="m", version="1", manifest_digest="1" * 64),
        started_at=0.0,
        ended_at=1.0,
        count=1,
        latency_p50_us=1.0,
        latency_p95_us=1.0,
    )
    batch = TelemetryBatch(epoch=EPOCH, base=1, records=(Record(sequence=1, body=window),))
    assert b'"windows"' not in encode(batch)
    assert b'"reduced"' not in encode(batch)
    merged = window.model_copy(update={"windows": 6})
    assert decode(WindowSummary, encode(merged)).windows == 6


def test_telemetry_above_the_limit_is_refused() -> None:
    with pytest.raises(MessageError, match=f"the limit is {PAYLOAD_MAX_BYTES}"):
        encode_telemetry(EPOCH, 1, [b"x" * PAYLOAD_MAX_BYTES])


def test_what_is_encoded_decodes_to_the_same() -> None:
    batch = TelemetryBatch(epoch=EPOCH, base=3, records=(_record(4), _record(5, "ä")))
    assert decode(TelemetryBatch, encode(batch)) == batch


def test_unknown_keys_are_ignored() -> None:
    """EL-MSG-3."""
    payload = json.dumps({"epoch": EPOCH, "through": 7, "from_the_future": [1]}).encode()
    assert decode(Ack, payload) == Ack(epoch=EPOCH, through=7)


def test_oversized_is_refused_on_both_sides() -> None:
    """EL-MSG-1."""
    records = tuple(_record(n, "x" * 500) for n in range(1, 400))
    with pytest.raises(MessageError, match=f"the limit is {PAYLOAD_MAX_BYTES}"):
        encode(TelemetryBatch(epoch=EPOCH, base=1, records=records))
    with pytest.raises(MessageError, match="the limit is"):
        decode(Ack, b" " * (PAYLOAD_MAX_BYTES + 1))


def test_a_deeply_nested_document_is_one_error() -> None:
    with pytest.raises(MessageError):
        decode(Ack, b'{"epoch":' + b"[" * 60_000)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_no_nan_on_the_wire(number: str) -> None:
    """EL-MSG-2."""
    payload = f'{{"epoch":"{EPOCH}","base":1,"records":[{{"sequence":1,"body":' + (
        f'{{"kind":"event","at":{number},"name":"x"}}}}]}}'
    )
    with pytest.raises(MessageError):
        decode(TelemetryBatch, payload.encode())


def test_errors_name_the_key() -> None:
    with pytest.raises(MessageError, match=r"Ack: epoch: .*pattern"):
        decode(Ack, b'{"epoch":"nope","through":1}')


def test_holes_in_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="consecutive"):
        TelemetryBatch(epoch=EPOCH, base=1, records=(_record(1), _record(3)))
    with pytest.raises(ValueError, match="base lies above"):
        TelemetryBatch(epoch=EPOCH, base=2, records=(_record(1),))


def test_a_comparison_cannot_disagree_more_often_than_it_compared() -> None:
    ref = VersionRef(name="m", version="1", manifest_digest="0" * 64)
    with pytest.raises(ValueError, match="disagreements exceed"):
        Comparison(shadow=ref, count=1, disagreements=2)


def test_a_patch_travels_with_its_offer_and_leaves_no_trace_where_there_is_none() -> None:
    """EL-ART-4, EL-MSG-3: whoever knows no patches sees the messages of before."""
    patch = Patch(
        format="tensors.1",
        base_manifest_digest="a" * 64,
        base_artifact_digest="b" * 64,
        digest="c" * 64,
        size_bytes=5,
    )
    offer = Offer(
        name="m",
        version="2",
        manifest_digest="d" * 64,
        manifest_size_bytes=1,
        artifact_digest="e" * 64,
        artifact_size_bytes=9,
        patch=patch,
    )
    desired = Desired(revision=1, slots=(SlotDesired(slot="main", offer=offer),))
    assert decode(Desired, encode(desired)) == desired
    plain = offer.model_copy(update={"patch": None})
    assert "patch" not in plain.model_dump(mode="json")
    assert b"patch" not in encode(Desired(revision=1, slots=(SlotDesired(slot="m", offer=plain),)))
