"""Patches of the format tensors.1: made by the controller, applied by the protocol's decoder."""

import io
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop_controller.packaging.onnx_tensors import find_tensors
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.errors import PatchError
from edgeloop_protocol.limits import MIB
from edgeloop_protocol.tensor_patch import (
    FRAME,
    HEADER,
    MAGIC,
    SEGMENT,
    Kind,
    apply_tensor_patch,
)
from edgeloop_simulators.bench.delta_models import fp32_model, int8_model
from edgeloop_simulators.bench.model import mlp

RANDOM = np.random.default_rng(1)
LAYERS = [RANDOM.normal(size=(60, 200)).astype(np.float32) for _ in range(3)]


def moved(layers, scale):
    return [(w + RANDOM.normal(size=w.shape) * scale).astype(np.float32) for w in layers]


def apply(base, patch, result_bytes):
    made = io.BytesIO()
    apply_tensor_patch(io.BytesIO(base), io.BytesIO(patch), made.write, result_bytes)
    return made.getvalue()


def round_trip(base, new):
    patch = make_tensor_patch(base, new)
    assert apply(base, patch, len(new)) == new
    return patch


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_come_back(base, new):
    round_trip(base, new)


@given(
    st.integers(4000, 9000),
    st.lists(st.tuples(st.integers(0, 8999), st.integers(0, 255)), max_size=300),
    st.integers(0, 1 << 30),
)
@settings(max_examples=60, deadline=None)
def test_files_of_one_size_with_other_bytes_come_back(size, changes, seed):
    base = np.random.default_rng(seed).bytes(size)
    new = bytearray(base)
    for place, value in changes:
        new[place % size] = value
    round_trip(base, bytes(new))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("encode", [fp32_model, int8_model])
def test_models_come_back_and_near_ones_cost_less(encode, scale):
    base, new = encode(LAYERS), encode(moved(LAYERS, scale))
    patch = round_trip(base, new)
    if scale <= 1e-3:
        assert len(patch) < 0.7 * len(new)
    if scale == 0.0:
        assert len(patch) == HEADER.size + SEGMENT.size


def test_a_layer_more_or_less_comes_back():
    base, longer = fp32_model(LAYERS[:2]), fp32_model(moved(LAYERS, 1e-4))
    round_trip(base, longer)
    round_trip(longer, base)
    round_trip(mlp(RANDOM), mlp(RANDOM, hidden=48))


def test_few_changes_far_apart_come_back():
    base = RANDOM.normal(size=3_000_000).astype(np.float32)
    new = base.copy()
    new[[0, 1, 255, 256, 257, 600, 70_000, 2_999_999]] += 1
    patch = round_trip(base.tobytes(), new.tobytes())
    assert len(patch) < 2000


def test_tensors_are_found_where_they_stand():
    model = fp32_model(LAYERS)
    found = find_tensors(model)
    assert [tensor.name for tensor in found] == ["w0", "w1", "w2"]
    for tensor, layer in zip(found, LAYERS, strict=True):
        assert model[tensor.start : tensor.start + tensor.size] == layer.tobytes()


@given(st.binary(max_size=100) | st.builds(lambda n: fp32_model(LAYERS)[:n], st.integers(0, 999)))
@settings(max_examples=100, deadline=None)
def test_what_is_no_onnx_file_has_no_tensors_and_raises_nothing(content):
    for tensor in find_tensors(content):
        assert 0 <= tensor.start <= tensor.start + tensor.size <= len(content)


BASE, NEW = fp32_model(LAYERS), fp32_model(moved(LAYERS, 1e-4))
PATCH = make_tensor_patch(BASE, NEW)


@given(st.integers(0, len(PATCH) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_a_flipped_byte_is_an_error_or_other_bytes_of_the_right_size(place, flip):
    spoilt = bytearray(PATCH)
    spoilt[place] ^= flip
    with suppress(PatchError):
        assert len(apply(BASE, bytes(spoilt), len(NEW))) == len(NEW)


@given(st.integers(0, len(PATCH) - 1))
@settings(max_examples=100, deadline=None)
def test_a_truncated_patch_is_an_error(length):
    with pytest.raises(PatchError):
        apply(BASE, PATCH[:length], len(NEW))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_after_a_right_header_are_an_error_or_the_right_size(content):
    patch = HEADER.pack(MAGIC, len(BASE), 100, 3) + content
    with suppress(PatchError):
        assert len(apply(BASE, patch, 100)) == 100


def test_another_base_is_an_error():
    with pytest.raises(PatchError, match="for a base of"):
        apply(BASE[:-1], PATCH, len(NEW))


GIB = 1 << 30


def hostile(kind, width, size, offset=0, extra=0, frame=b""):
    segment = SEGMENT.pack(kind, width, size, offset, extra)
    return HEADER.pack(MAGIC, len(BASE), size, 1) + segment + FRAME.pack(len(frame)) + frame


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(256 * MIB))


@pytest.mark.parametrize(
    "patch",
    [
        hostile(Kind.COPY, 1, 4 * GIB),
        hostile(Kind.COPY, 1, 10, offset=(1 << 64) - 5),
        hostile(Kind.LITERAL, 1, 4 * GIB),
        hostile(Kind.LITERAL, 1, 10, extra=(1 << 32) - 1),
        hostile(Kind.PLANES, 8, 4 * GIB),
        hostile(Kind.PLANES, 3, 9),
        hostile(Kind.SPARSE, 1, 4 * GIB, extra=5),
        hostile(Kind.SPARSE, 4, 400, extra=(1 << 32) - 1),
        hostile(Kind.SPARSE, 4, 400, extra=0),
        hostile(7, 4, 400),
        hostile(Kind.LITERAL, 1, 1000, frame=BOMB),
        hostile(Kind.PLANES, 1, 1000, frame=BOMB),
    ],
)
def test_hostile_patches_are_errors_within_bounded_memory(patch):
    size = HEADER.unpack(patch[: HEADER.size])[2]
    written = 0

    def write(chunk):
        nonlocal written
        written += len(chunk)

    tracemalloc.start()
    try:
        with pytest.raises(PatchError):
            apply_tensor_patch(io.BytesIO(BASE), io.BytesIO(patch), write, size)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert written <= len(BASE)
