"""Packaging a model: what is filled in, what is contradicted, and models that misbehave."""

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.interface import Interface
from edgeloop_controller.packaging.introspect import introspect
from edgeloop_controller.packaging.package import draft_like, load_draft, package, read_baseline
from edgeloop_controller.packaging.runtime import run_model
from edgeloop_protocol.manifest import (
    Evaluation,
    Golden,
    Lineage,
    Manifest,
    ManifestDraft,
    TensorSpec,
    parse_manifest,
)

NAMES = ("a", "b", "c", "d")


def table(rows: int = 120, groups: int = 4, names: tuple[str, ...] = NAMES) -> pa.Table:
    rng = np.random.default_rng(2)
    columns = {name: rng.normal(size=rows).astype(np.float32) for name in names}
    columns["group"] = [f"g{n % groups}" for n in range(rows)]
    return pa.table(columns)


def interface_of(model: bytes) -> Interface:
    facts = introspect(model)
    return Interface(
        runtime=facts.runtime, inputs=facts.inputs, outputs=facts.outputs, features=tuple("abcd")
    )


class Runtime:
    """A run function that computes Gemm-Softmax-like scores in this process."""

    def __init__(self, labels: int = 3) -> None:
        self.labels = labels
        self.calls = 0

    def __call__(
        self, model: bytes, inputs: np.ndarray, interface: object
    ) -> dict[str, np.ndarray]:
        self.calls += 1
        scores = np.exp(inputs[:, : self.labels].astype(np.float64))
        return {"probabilities": scores / scores.sum(axis=1, keepdims=True)}


def test_fills_in_all_that_the_file_says(make_model):
    model = make_model()
    manifest = package(model, "tiny", "1", ManifestDraft(), run=run_model)
    assert manifest.artifact.size_bytes == len(model)
    assert manifest.scores_output == "probabilities"
    assert [feature.name for feature in manifest.features] == ["f0", "f1", "f2", "f3"]
    assert manifest.labels == ("0", "1", "2")
    assert manifest.baseline is None
    assert manifest.golden is not None
    assert 1 < len(manifest.golden.inputs) <= 8
    again = run_model(
        model, np.array(manifest.golden.inputs, dtype=np.float32), Interface.of(manifest)
    )
    assert np.allclose(again["probabilities"], manifest.golden.outputs, atol=1e-6)
    assert parse_manifest(manifest.canonical()) == manifest


def test_the_same_input_gives_the_same_digest(make_model):
    first, second = (
        package(make_model(), "tiny", "1", ManifestDraft(), table(rows=3000), run=Runtime())
        for _ in range(2)
    )
    assert first.digest() == second.digest()


def test_a_baseline_names_features_and_calibrates(make_model):
    manifest = package(make_model(), "tiny", "1", ManifestDraft(), table(), run=Runtime())
    baseline = manifest.baseline
    assert baseline is not None
    assert tuple(feature.name for feature in manifest.features) == NAMES
    assert baseline.count == 120
    for binned in (*baseline.features, baseline.confidence):
        assert sum(binned.shares) == pytest.approx(1.0)
        assert len(set(binned.edges)) == len(binned.edges)
    assert sum(baseline.predictions) == pytest.approx(1.0)
    assert baseline.thresholds is not None
    assert baseline.thresholds.groups == 4
    assert (
        package(
            make_model(), "t", "1", ManifestDraft(), table(groups=2), run=Runtime()
        ).baseline.thresholds
        is None
    )


def test_draft_lineage_and_evaluation_are_kept(make_model):
    draft = load_draft(
        'description = "gait"\nlabels = ["x", "y", "z"]\nnote = "by hand"\n'
        '[sensors]\na = "left"\n[requires]\narchitectures = ["x86_64"]\n',
        "model.toml",
    )
    evaluation = Evaluation(examples=5, accuracy=0.8)
    manifest = package(
        make_model(), "tiny", "1", draft, table(), run=Runtime(),
        lineage=Lineage(training_run="7"), evaluation=evaluation,
    )  # fmt: skip
    assert manifest.labels == ("x", "y", "z")
    assert [feature.sensor for feature in manifest.features] == ["left", "b", "c", "d"]
    assert manifest.lineage == Lineage(training_run="7", note="by hand")
    assert manifest.evaluation == evaluation
    successor = draft_like(manifest)
    assert (successor.labels, successor.features) == (manifest.labels, NAMES)


def test_preprocessing_names_features_and_sensors(make_model):
    draft = load_draft(
        "[preprocessing]\nkind = 'window_statistics'\nrows = 10\n"
        "channels = ['ax', 'ay']\nstatistics = ['mean', 'std']\n",
        "model.toml",
    )
    manifest = package(make_model(), "tiny", "1", draft, run=Runtime())
    assert [f.name for f in manifest.features] == ["ax_mean", "ay_mean", "ax_std", "ay_std"]
    assert [f.sensor for f in manifest.features] == ["ax", "ay", "ax", "ay"]


CONTRADICTIONS = [
    ({"runtime": "tflite"}, "draft says runtime tflite, but the file is onnx"),
    ({"opset": 12}, "draft says opset 12, but the file has opset 17"),
    (
        {"inputs": (TensorSpec(name="x", dtype="float32", shape=(None, 9)),)},
        r"draft says inputs x float32\(\?, 9\), but the file has x float32\(\?, 4\)",
    ),
    (
        {"outputs": (TensorSpec(name="p", dtype="float32", shape=(None, 3)),)},
        "draft says outputs p .* but the file has probabilities",
    ),
    ({"labels": ("x", "y")}, "names 2 labels .* gives 3 scores"),
    ({"features": ("a", "b")}, r"2 features \(a, b\), but the model's input 'x' takes 4"),
    ({"scores_output": "logits"}, "says scores_output 'logits', but the file's outputs"),
    ({"sensors": {"zz": "left"}}, "sensors are given for zz, which are not features"),
    ({"golden": Golden(inputs=((1, 2),), outputs=((1, 0, 0),))}, "golden inputs and outputs have"),
    (
        {"golden": Golden(inputs=((0, 0, 0, 0),), outputs=((1, 0, 0),))},
        "lie 0.66.* from the draft's golden outputs",
    ),
]


@pytest.mark.parametrize(("draft", "says"), CONTRADICTIONS)
def test_a_draft_that_contradicts_the_file_names_both_sides(make_model, draft, says):
    with pytest.raises(PackagingError, match=says):
        package(make_model(), "tiny", "1", ManifestDraft(**draft), run=Runtime())


def with_column(name: str, values: list[object]) -> pa.Table:
    return table().set_column(0, name, pa.array(values))


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        (table(names=("a", "b", "c", "e")), "missing d; not features e"),
        (table(rows=5), "the baseline has 5 rows; it needs 20"),
        (with_column("a", [float("nan")] * 120), "column a has 120 values that are missing"),
        (with_column("a", [None] * 120), "column a has 120 values that are missing"),
        (with_column("a", ["x"] * 120), "column a is not of numbers"),
    ],
)
def test_a_baseline_that_does_not_fit_names_its_columns(make_model, baseline, says):
    draft = ManifestDraft(features=NAMES)
    with pytest.raises(PackagingError, match=says):
        package(make_model(), "tiny", "1", draft, baseline, run=Runtime())


def test_a_baseline_that_is_no_parquet_is_refused():
    with pytest.raises(PackagingError, match=r"up\.parquet is not a Parquet file"):
        read_baseline(b"junk", "up.parquet")


def test_a_baseline_survives_parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(table(), sink)
    assert read_baseline(sink.getvalue().to_pybytes(), "up.parquet").num_rows == 120


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("labels = [", "model.toml is not TOML"),
        ("colour = 'red'", "model.toml: colour: Extra inputs are not permitted"),
        ("labels = 3", "model.toml: labels"),
    ],
)
def test_a_draft_that_cannot_be_read_names_the_key(text, says):
    with pytest.raises(PackagingError, match=says):
        load_draft(text, "model.toml")


def test_an_input_that_is_no_number_is_refused(make_model):
    with pytest.raises(PackagingError, match="input is x bool"):
        package(make_model(dtype=TensorProto.BOOL), "t", "1", ManifestDraft(), run=Runtime())


def test_a_model_that_yields_nan_on_its_own_data_is_refused(make_model):
    def nan_for_some(model: bytes, inputs: np.ndarray, interface: object) -> dict[str, np.ndarray]:
        scores = Runtime()(model, inputs, interface)["probabilities"]
        scores[3] = np.nan
        return {"probabilities": scores}

    with pytest.raises(PackagingError, match="NaN or Inf for 1 of 120 baseline rows"):
        package(make_model(), "t", "1", ManifestDraft(), table(), run=nan_for_some)


def test_a_model_that_the_runtime_cannot_load_is_refused(make_model, edit_model):
    def unknown_operator(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(PackagingError, match="the model cannot be run"):
        package(edit_model(make_model(), unknown_operator), "t", "1", ManifestDraft())


def test_a_model_that_hangs_is_stopped(edit_model, make_model):
    """A loop of 10^15 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Sin", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["n", 4]),
        ],
    )

    def loop(proto: onnx.ModelProto) -> None:
        turns = helper.make_tensor("turns", TensorProto.INT64, [], [10**15])
        proto.graph.initializer.append(turns)
        proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        proto.graph.node.insert(
            0, helper.make_node("Loop", ["turns", "yes", "x"], ["looped"], body=body)
        )
        proto.graph.node[1].input[0] = "looped"

    slow = edit_model(make_model(), loop)
    with pytest.raises(PackagingError, match="did not finish within 2 s"):
        run_model(slow, np.zeros((1, 4), dtype=np.float32), interface_of(slow), timeout_s=2)


def test_a_model_with_a_batch_of_one_is_run_row_by_row(make_model):
    inputs = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    free = run_model(make_model(), inputs, interface_of(make_model()))["probabilities"]
    one = make_model(rows=1)
    fixed = run_model(one, inputs, interface_of(one))["probabilities"]
    assert np.allclose(free, fixed, atol=1e-6)


def test_no_truncated_file_ever_becomes_a_version(make_model):
    model = make_model()
    for length in range(40, len(model), len(model) // 6):
        with pytest.raises(PackagingError):
            package(model[:length], "t", "1", ManifestDraft())


def test_manifest_type_is_what_devices_read(make_model):
    manifest = package(make_model(), "tiny", "1", ManifestDraft(), table(), run=Runtime())
    assert isinstance(parse_manifest(manifest.canonical()), Manifest)
