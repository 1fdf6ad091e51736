"""Weights in files beside a model: put inside, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.external_weights import FILES_MAX, joined, weight_files
from edgeloop_controller.packaging.introspect import introspect

LIMIT_BYTES = 1 << 20


@pytest.fixture(name="outside", params=[True, False], ids=["one file", "a file a tensor"])
def outside_fixture(
    make_model: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[bytes, dict[str, bytes]]:
    proto = onnx.load_model_from_string(make_model())
    onnx.save(
        proto,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=request.param,
        size_threshold=0,
    )
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    return files.pop("m.onnx"), files


def answers(model: bytes) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(8, dtype=np.float32).reshape(2, 4)})[0]


def test_the_model_answers_as_it_did(
    outside: tuple[bytes, dict[str, bytes]], make_model: Any
) -> None:
    model, files = outside
    assert set(weight_files(model)) == set(files)
    whole = joined(model, files, LIMIT_BYTES)
    assert introspect(whole) == introspect(make_model())
    assert np.array_equal(answers(whole), answers(make_model()))
    assert joined(model, files, LIMIT_BYTES) == whole


def test_a_whole_model_stays_as_it_is(make_model: Any) -> None:
    model = make_model()
    assert weight_files(model) == ()
    assert joined(model, {}, LIMIT_BYTES) is model


def test_there_is_a_bound(outside: tuple[bytes, dict[str, bytes]]) -> None:
    model, files = outside
    with pytest.raises(PackagingError, match="above"):
        joined(model, files, len(model) + 8)


def test_files_that_do_not_fit_are_refused(outside: tuple[bytes, dict[str, bytes]]) -> None:
    model, files = outside
    short = {name: content[:-1] for name, content in files.items()}
    for given_files in ({}, short):
        with pytest.raises(PackagingError, match="truncated"):
            joined(model, given_files, LIMIT_BYTES)


def naming(edit_model: Any, make_model: Any, *entries: tuple[str, str], kind: int = 1) -> bytes:
    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.data_type, tensor.data_location = kind, TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        for key, value in entries:
            tensor.external_data.add(key=key, value=value)

    changed: bytes = edit_model(make_model(), change)
    return changed


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0b", "x" * 256]
)
def test_only_plain_names_are_files_beside_it(name: str, edit_model: Any, make_model: Any) -> None:
    with pytest.raises(PackagingError, match="no file beside it"):
        weight_files(naming(edit_model, make_model, ("location", name)))


@pytest.mark.parametrize(
    "entries",
    [
        (("offset", "-4"),),
        (("offset", "1e1"),),
        (("offset", "4"),),
        (("offset", "9" * 30),),
        (("length", "47"),),
        (("length", "-1"),),
    ],
)
def test_a_range_that_is_none_is_refused(
    entries: tuple[tuple[str, str], ...], edit_model: Any, make_model: Any
) -> None:
    model = naming(edit_model, make_model, ("location", "w"), *entries)
    with pytest.raises(PackagingError, match="do not belong together"):
        joined(model, {"w": bytes(48)}, LIMIT_BYTES)


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED])
def test_types_without_a_size_are_refused(kind: int, edit_model: Any, make_model: Any) -> None:
    model = naming(edit_model, make_model, ("location", "w"), kind=kind)
    with pytest.raises(PackagingError, match="no size"):
        joined(model, {"w": bytes(48)}, LIMIT_BYTES)


def test_too_many_files_are_refused(edit_model: Any, make_model: Any) -> None:
    def change(proto: onnx.ModelProto) -> None:
        for number in range(FILES_MAX + 1):
            tensor = helper.make_tensor(f"t{number}", TensorProto.FLOAT, [1], [1.0])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=f"f{number}")
            proto.graph.initializer.append(tensor)

    with pytest.raises(PackagingError, match=f"{FILES_MAX + 1} files"):
        weight_files(edit_model(make_model(), change))


@given(st.binary(max_size=200))
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(PackagingError):
        weight_files(content)
