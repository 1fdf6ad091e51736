"""The runner's parts: models, self-test, windows, sources, sinks, sampling, lines, the probe."""

import base64
import json
import random
import socket

import numpy as np
import onnx
import pytest
from datasketches import kll_floats_sketch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeloop_agent.config import JsonlSink, ReplaySource, SlotConfig, SocketSource, TelemetryConfig
from edgeloop_agent.errors import DataSetError, ModelLoadError
from edgeloop_agent.lines import LineSplitter
from edgeloop_agent.runner import onnx_limits
from edgeloop_agent.runner.constant_output import Sameness
from edgeloop_agent.runner.inference import Answer, Inference, NoAnswer
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.sampling import Sampler
from edgeloop_agent.runner.self_test import self_test
from edgeloop_agent.runner.sinks import FileSink
from edgeloop_agent.runner.sources import LINE_MAX_BYTES, Replay, SocketFeed
from edgeloop_agent.runner.window import FOLD_EXAMPLES, SketchSet, Window
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.manifest import Golden, Preprocessing, TensorSpec


@pytest.fixture
def load(tmp_path, make_package):
    def stored(package, name="m"):
        manifest, model = tmp_path / f"{name}.json", tmp_path / f"{name}.onnx"
        manifest.write_bytes(package.manifest.canonical())
        model.write_bytes(package.model)
        return Model(
            ModelFiles(
                version=package.offer.ref, manifest_path=str(manifest), model_path=str(model)
            )
        )

    return stored


def floats(*values):
    return np.asarray(values, dtype=np.float32)


# ---- models -----------------------------------------------------------------------------------


def test_a_model_answers_as_the_formula_says(load, make_package):
    answer = Inference(load(make_package()), None).answer(floats(1.0, 0.0, -1.0))
    assert isinstance(answer, Answer)
    assert answer.label == 0
    assert answer.confidence == pytest.approx(1 / (1 + np.exp(-4.0)), abs=1e-6)
    assert answer.latency_us > 0


@pytest.mark.parametrize("values", [floats(1, 2), floats(1, 2, 3, 4), np.ones((2, 3), np.float32)])
def test_a_wrong_shape_is_no_answer_and_says_so(load, make_package, values):
    answer = Inference(load(make_package()), None).answer(values)
    assert isinstance(answer, NoAnswer)
    assert not answer.nonfinite
    assert "features" in answer.problem or "shape" in answer.problem


def test_nan_is_never_an_answer(load, make_package):
    answer = Inference(load(make_package(nan=True, golden=None)), None).answer(floats(1, 2, 3))
    assert isinstance(answer, NoAnswer)
    assert answer.nonfinite


def test_versions_are_compared_by_the_labels_name(load, make_package):
    model = load(make_package("1"))
    swapped = load(
        make_package(
            "2", weights=[[-1, 1], [0.5, 0.5], [1, -1]], labels=("right", "left"), golden=None
        ),
        "other",
    )
    answer = Inference(model, swapped).answer(floats(1.0, 0.0, -1.0))
    assert answer.compared
    assert answer.shadow_label == answer.label == 0


def test_a_shadow_that_fails_never_touches_the_answer(load, make_package):
    broken = load(make_package("2", nan=True, golden=None), "other")
    answer = Inference(load(make_package("1")), broken).answer(floats(1.0, 0.0, -1.0))
    assert answer.label == 0
    assert not answer.compared


def picky_model():
    """Gives (0.5, 0.5), but fails where the largest value is no index of a table of three."""
    table = numpy_helper.from_array(np.full((3, 2), 0.5, dtype=np.float32), "table")
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["largest"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["p"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "picky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_an_input_that_the_runtime_fails_on_costs_only_its_own_answer(load, make_package):
    model = load(make_package(model=picky_model(), golden=None))
    answer = Inference(model, None).answer(floats(0, 1, 99))
    assert isinstance(answer, NoAnswer)
    assert "inference failed" in answer.problem
    assert not answer.by_source, "the model is answerable for it"
    assert Inference(model, None).answer(floats(0, 1, 2)).confidence == 0.5
    sound = load(make_package("2"), "other")
    answer = Inference(sound, model).answer(floats(0, 1, 99))
    assert isinstance(answer, Answer), "nor does it touch the answer when it runs in shadow"
    assert not answer.compared


def test_values_too_large_for_their_features_are_a_refused_example(load, make_package):
    windowed = Preprocessing(
        kind="window_statistics", rows=4, channels=("x", "y", "z"), statistics=("rms",)
    )
    features = tuple({"name": name, "sensor": "s"} for name in windowed.feature_names())
    model = load(make_package(preprocessing=windowed, features=features, golden=None))
    answer = Inference(model, None).answer(np.full((4, 3), 1e30, dtype=np.float32))
    assert isinstance(answer, NoAnswer)
    assert (answer.by_source, answer.nonfinite) == (True, False)
    assert "too large" in answer.problem


def test_damaged_files_are_not_loaded(load, make_package, tmp_path):
    package = make_package()
    load(package)
    other = make_package("2")
    (tmp_path / "m.onnx").write_bytes(package.model[:-1] + b"?")
    with pytest.raises(ModelLoadError, match="digest mismatch"):
        Model(files(tmp_path, package))
    with pytest.raises(ModelLoadError, match="not what was offered"):
        Model(files(tmp_path, other))
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelLoadError, match="cannot read"):
        Model(files(tmp_path, package))


def files(directory, package):
    return ModelFiles(
        version=package.offer.ref,
        manifest_path=str(directory / "m.json"),
        model_path=str(directory / "m.onnx"),
    )


@pytest.mark.parametrize("content", [b"\x00" * 10, b"not a model"])
def test_what_is_no_model_is_a_load_error(load, make_package, content):
    with pytest.raises(ModelLoadError, match="onnxruntime cannot load it"):
        load(make_package(model=content))


def test_inputs_and_outputs_must_be_the_manifests(load, make_package):
    spec = TensorSpec(name="y", dtype="float32", shape=(None, 3))
    with pytest.raises(ModelLoadError, match=r"inputs are \['x'\]"):
        load(make_package(inputs=(spec,)))
    out = TensorSpec(name="q", dtype="float32", shape=(None, 2))
    with pytest.raises(ModelLoadError, match=r"outputs are \['p'\]"):
        load(make_package(outputs=(out,), scores_output="q"))


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "secret.bin"])
def test_external_data_is_never_resolved(load, make_package, tmp_path, monkeypatch, location):
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2])
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "24"}.items():
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["p"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelLoadError):
        load(make_package(model=model.SerializeToString()))


# ---- self-test --------------------------------------------------------------------------------


def test_golden_examples(load, make_package):
    good = make_package()
    assert self_test(load(good)) is None
    assert self_test(load(make_package(golden=None))) is None
    golden = good.manifest.golden
    off = ((0.4, 0.6), *golden.outputs[1:])
    wrong = Golden(inputs=golden.inputs, outputs=off)
    assert "golden input 0: off by 0.1" in self_test(load(make_package(golden=wrong)))
    narrow = Golden(inputs=((1.0,),), outputs=((0.5, 0.5),))
    assert "has 1 features" in self_test(load(make_package(golden=narrow)))
    wide = Golden(inputs=golden.inputs[:1], outputs=((0.5, 0.3, 0.2),))
    assert "the model gives (2,)" in self_test(load(make_package(golden=wide)))
    assert "NaN" in self_test(load(make_package(nan=True, golden=golden)))


def test_the_self_test_finds_a_constant(load, make_package):
    """Also where the golden outputs were made with the very same model."""
    flat = [[0.0, 0.0]] * 3
    stuck = make_package(weights=flat)
    assert "constant output: 12 different inputs" in self_test(load(stuck))
    assert "constant output" in self_test(load(make_package(weights=flat, golden=None)))
    assert "constant output" in self_test(load(make_package(weights=flat, baseline=None)))
    nothing_known = make_package(weights=flat, golden=None, baseline=None)
    assert self_test(load(nothing_known)) is None


def test_a_model_that_is_the_same_at_rest_only_is_no_constant(load, make_package):
    """As a decision tree is: its golden inputs lie in one leaf, all of them."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "last"], ["c"], axis=1),
            helper.make_node("Greater", ["c", "threshold"], ["above"]),
            helper.make_node("Where", ["above", "busy", "rest"], ["p"]),
        ],
        "tree",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])],
        [
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.float32(3.5), "threshold"),
            numpy_helper.from_array(np.float32([[0.0, 1.0]]), "busy"),
            numpy_helper.from_array(np.float32([[1.0, 0.0]]), "rest"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    golden = Golden(inputs=((0, 0, 0), (1, 2, 3)), outputs=((1, 0), (1, 0)))
    tree = load(make_package(model=model.SerializeToString(), golden=golden))
    assert self_test(tree) is None
    inference = Inference(tree, None)
    for number in range(30):
        inference.answer(floats(number, 1, 2))
    assert inference.sameness.same_answers == 30
    inference.answer(floats(0, 0, 9))
    assert inference.sameness.same_answers == 0


@pytest.mark.parametrize(
    ("labels", "varied"),
    [([0, 0, 0, 0], False), ([0, 1] * 5, True), ([1] + [0] * 9, False), ([0] * 9 + [1], False)],
)
def test_the_old_version_varies_when_it_gives_two_labels_often(labels, varied):
    sameness = Sameness()
    for number, label in enumerate(labels):
        sameness.saw(floats(number), floats(0.5), label)
    assert sameness.shadow_varied is varied
    assert sameness.same_answers == len(labels)
    sameness.saw(floats(0), floats(0.5), None)
    assert sameness.same_answers == len(labels), "the same input again says nothing"


def test_an_output_of_another_width_than_the_labels_fails(load, make_package):
    package = make_package(labels=("a", "b", "c"), golden=None, baseline=None)
    assert "expected (1, 3)" in self_test(load(package))


# ---- windows ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_a_window_counts_each_example_once(make_package, count, errors, nonfinite, seed):
    manifest = make_package().manifest
    sketches = SketchSet(3)
    window = Window(manifest, sketches, 1.0)
    chance = np.random.default_rng(seed)
    rows = chance.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], size=(count, 3)).astype(np.float32)
    confidences = chance.uniform(0.5, 1.0, count)
    for row, confidence in zip(rows, confidences, strict=True):
        window.answered(row, int(row[0] > 0), float(confidence))
        window.timed(10.0)
    for _ in range(errors):
        window.errored()
    for _ in range(nonfinite):
        window.gave_nonfinite()
    summary = window.summary("main", make_package().offer.ref, 2.0, 5, None, sketches.serialise())
    assert (summary.count, summary.errors, summary.nonfinite) == (count, errors, nonfinite)
    assert summary.predictions == (int((rows[:, 0] <= 0).sum()), int((rows[:, 0] > 0).sum()))
    for column, histogram in enumerate(summary.features):
        edges = manifest.baseline.features[column].edges
        expected = [
            int(sum(np.searchsorted(edges, x, side="right") == bin_ for x in rows[:, column]))
            for bin_ in range(len(edges) + 1)
        ]
        assert list(histogram) == expected
    assert sum(summary.confidence) == count


def test_sketches_hold_every_value_and_merge(make_package):
    sketches = SketchSet(3)
    window = Window(make_package().manifest, sketches, 0.0)
    values = np.random.default_rng(1).normal(size=(FOLD_EXAMPLES + 10, 3)).astype(np.float32)
    for row in values:
        window.answered(row, 0, 0.9)
    window.summary("main", make_package().offer.ref, 1.0, 0, None, None)
    serialised = sketches.serialise()
    assert serialised.count == len(values)
    sketch = kll_floats_sketch.deserialize(base64.b64decode(serialised.features[1]))
    assert sketch.n == len(values)
    assert sketch.get_rank(0.0) == pytest.approx(float((values[:, 1] <= 0).mean()), abs=0.03)


def test_empty_and_oversized_sketches_stay_at_home(make_package):
    assert SketchSet(3).serialise() is None
    wide = SketchSet(200)
    values = np.random.default_rng(1).normal(size=(2000, 200)).astype(np.float32)
    wide.update(values, np.ones(2000, np.float32))
    assert wide.serialise() is None


def test_without_a_baseline_predictions_are_still_counted(make_package):
    window = Window(make_package(baseline=None).manifest, SketchSet(3), 0.0)
    window.answered(floats(1, 2, 3), 1, 0.9)
    summary = window.summary("main", make_package().offer.ref, 1.0, 0, None, None)
    assert (summary.predictions, summary.features, summary.confidence) == ((0, 1), (), ())


def test_samples_are_a_fraction_with_a_cap():
    config = TelemetryConfig(sample_fraction=0.5, samples_max_per_window=5)
    sampler = Sampler(config, random.Random(1))
    taken = [sampler.take() for _ in range(100)]
    assert sum(taken) == 5
    assert not all(taken[:5])
    sampler.next_window()
    assert any(sampler.take() for _ in range(20))


# ---- sources ----------------------------------------------------------------------------------


def replay(tmp_path, array=None, text=None, **config):
    path = tmp_path / ("s.npy" if text is None else "s.csv")
    if text is None:
        np.save(path, array)
    else:
        path.write_text(text)
    return Replay(ReplaySource(path=path, **config), now=0.0)


def test_a_replay_plays_windows_at_its_rate(tmp_path):
    table = np.arange(20, dtype=np.float64).reshape(10, 2)
    source = replay(tmp_path, table, window_rows=4, hop_rows=3, rate_hz=2, loop=False)
    first = source.read(0.0)
    assert [example.reference for example in first] == ["s.npy#0"]
    assert first[0].values.tolist() == table[:4].tolist()
    assert source.read(0.1) == []
    assert source.next_due() == 0.5
    assert [e.reference for e in source.read(1.0)] == ["s.npy#3", "s.npy#6"]
    assert source.next_due() is None, "the end"


def test_a_replay_loops_and_does_not_rush_after_a_pause(tmp_path):
    source = replay(tmp_path, text="a,b\n1,2\n3,4\n", rate_hz=1)
    assert [e.reference for e in source.read(3.0)] == ["s.csv#0", "s.csv#1", "s.csv#0", "s.csv#1"]
    assert len(source.read(10_000.0)) <= 64
    assert source.next_due() >= 9_999


def test_a_replay_of_a_file_with_nan_says_so(tmp_path):
    source = replay(tmp_path, text="1,nan\n")
    (example,) = source.read(0.0)
    assert example.values is None
    assert "NaN" in example.problem


@pytest.mark.parametrize(
    ("content", "config", "words"),
    [
        ("a,b\nx,y\n", {}, "cannot play"),
        ("1,2\n", {"window_rows": 5}, "one window needs 5"),
        ("", {}, "shape|cannot play"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_files_that_cannot_be_played(tmp_path, content, config, words):
    with pytest.raises(DataSetError, match=words):
        replay(tmp_path, text=content, **config)


def test_a_pickle_is_never_loaded(tmp_path):
    with pytest.raises(DataSetError, match="cannot play"):
        replay(tmp_path, np.array([{"a": 1}], dtype=object))


@pytest.fixture
def sensor(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sensor.sock"))
        server.listen(2)
        yield server


def test_a_socket_feed_connects_reads_answers_and_reconnects(tmp_path, sensor):
    feed = SocketFeed(SocketSource(path=tmp_path / "sensor.sock"))
    assert feed.read(0.0) == []
    peer, _ = sensor.accept()
    peer.sendall(b'{"reference": "r1", "values": [1, 2, 3]}\n{"reference": "r2", "val')
    (example,) = feed.read(0.0)
    assert (example.reference, example.values.tolist()) == ("r1", [1, 2, 3])
    peer.sendall(b'ues": [[1, 2], [3, 4]]}\n')
    (example,) = feed.read(0.0)
    assert example.values.shape == (2, 2)
    feed.send(b"answer\n")
    assert peer.recv(100) == b"answer\n"
    peer.close()
    assert feed.read(1.0) == []
    assert feed.fileno() is None
    feed.read(feed.next_due())
    sensor.accept()[0].close()
    assert feed.fileno() is not None


def test_bad_lines_are_examples_with_a_problem(tmp_path, sensor):
    feed = SocketFeed(SocketSource(path=tmp_path / "sensor.sock"))
    feed.read(0.0)
    peer, _ = sensor.accept()
    bad = [
        b"not json",
        b"[1]",
        b'{"reference": "r"}',
        b'{"reference": "r", "values": [[1], [1, 2]]}',
        b'{"reference": "r", "values": ["x"]}',
        b'{"reference": "r", "values": [NaN]}',
        b'{"reference": "r", "values": [1e999]}',
    ]
    peer.sendall(b"\n".join([*bad, b'{"reference": "ok", "values": [1]}', b""]))
    examples = feed.read(0.0)
    assert [example.values is None for example in examples] == [True] * len(bad) + [False]
    assert all(example.problem for example in examples[:-1])


def test_a_socket_that_is_not_there_is_tried_again_later(tmp_path):
    feed = SocketFeed(SocketSource(path=tmp_path / "none.sock"))
    waits = []
    now = 0.0
    for _ in range(12):
        feed.read(now)
        waits.append(feed.next_due() - now)
        now = feed.next_due()
    assert 0 < min(waits) <= max(waits) <= 5.0


def test_answers_that_nobody_reads_are_dropped_and_counted(tmp_path, sensor):
    feed = SocketFeed(SocketSource(path=tmp_path / "sensor.sock"))
    feed.read(0.0)
    for _ in range(100):
        feed.send(b"x" * 100_000)
    assert feed.answers_dropped > 50


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=12), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(lines, size):
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter(8)
    got = []
    for start in range(0, len(stream), size):
        got += splitter.feed(stream[start : start + size])
    assert got == [line if len(line) <= 8 else None for line in lines]


def test_an_endless_line_is_said_once_and_holds_no_memory():
    splitter = LineSplitter(LINE_MAX_BYTES)
    said = []
    for _ in range(40):
        said += splitter.feed(b"x" * 100_000)
    assert said == [None]
    assert splitter.feed(b"\nnext\n") == [b"next"]


# ---- sinks ------------------------------------------------------------------------------------


def test_the_file_sink_rotates(tmp_path):
    path = tmp_path / "answers.jsonl"
    sink = FileSink(JsonlSink(path=path, max_bytes=200))
    for number in range(40):
        sink.answer({"reference": f"r{number}", "label": "left"})
    lines = [json.loads(line) for line in path.with_name("answers.jsonl.1").open()]
    assert lines[0]["label"] == "left"
    assert path.with_name("answers.jsonl.1").stat().st_size < 250
    assert len(list(tmp_path.iterdir())) <= 2


def test_a_sink_that_cannot_write_counts_and_goes_on(tmp_path):
    sink = FileSink(JsonlSink(path=tmp_path / "no" / "answers.jsonl"))
    sink.answer({"reference": "r"})
    sink.answer({"reference": "r"})
    assert sink.dropped == 2


def test_a_slot_config_travels_to_the_runner(tmp_path):
    config = SlotConfig(source=SocketSource(path=tmp_path / "s"), sink={"kind": "socket"})
    assert SlotConfig.model_validate_json(config.model_dump_json()) == config


# ---- the probe --------------------------------------------------------------------------------


def test_the_probes_model_is_a_model_and_the_bound_is_found():
    onnx.checker.check_model(onnx.load_from_string(onnx_limits.tiny_model(17, 8)))
    assert onnx_limits.loads(17, 8)
    assert not onnx_limits.loads(250, 8)
    assert onnx_limits.newest(lambda n: n <= 23, 7, 256) == 23
    assert onnx_limits.newest(lambda n: False, 7, 256) == 7


def test_preprocessing_on_the_device(load, make_package):
    windowed = Preprocessing(
        kind="window_statistics", rows=4, channels=("x", "y", "z"), statistics=("mean",)
    )
    features = tuple({"name": name, "sensor": "s"} for name in windowed.feature_names())
    model = load(make_package(preprocessing=windowed, features=features, golden=None))
    answer = Inference(model, None).answer(np.ones((4, 3), dtype=np.float32))
    assert answer.features.tolist() == [1.0, 1.0, 1.0]
    wrong = Inference(model, None).answer(np.ones((5, 3), dtype=np.float32))
    assert "fix the source's window" in wrong.problem


# ---- many at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("with_shadow", [False, True])
def test_many_are_answered_as_each_alone(load, make_package, at_once, with_shadow):
    shadow = load(make_package("2", weights=[[-1, 1], [0.5, 0.5], [1, -1]], golden=None), "other")
    inference = Inference(load(make_package()), shadow if with_shadow else None)
    values = list(np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32))
    batch = inference.answer_many(values, at_once)
    assert batch is not None
    alone = [inference.answer(one) for one in values]
    assert batch.labels.tolist() == [one.label for one in alone]
    np.testing.assert_allclose(batch.confidences, [one.confidence for one in alone], atol=1e-6)
    np.testing.assert_array_equal(batch.features, [one.features for one in alone])
    if with_shadow:
        assert batch.shadow_labels.tolist() == [one.shadow_label for one in alone]
    else:
        assert batch.shadow_labels is None


def test_one_that_cannot_be_answered_sends_all_the_slow_way(load, make_package):
    inference = Inference(load(make_package()), None)
    good = floats(1, 2, 3)
    assert inference.answer_many([good, floats(1, 2)]) is None
    assert inference.answer_many([good, floats(1, np.inf, 3)]) is None
    assert Inference(load(make_package(nan=True, golden=None)), None).answer_many([good]) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=4))
def test_a_window_counts_many_as_it_counts_each(make_package, sizes):
    manifest, ref = make_package().manifest, make_package().offer.ref
    one, many = Window(manifest, SketchSet(3), 0.0), Window(manifest, SketchSet(3), 0.0)
    random_ = np.random.default_rng(len(sizes))
    for size in sizes:
        rows = random_.choice([-2, -1, -0.5, 0, 0.5, 1, 3], size=(size, 3)).astype(np.float32)
        labels = random_.integers(0, 2, size)
        confidences = random_.uniform(0.5, 1, size).astype(np.float32)
        many.answered_many(rows, labels, confidences)
        for row, label, confidence in zip(rows, labels, confidences, strict=True):
            one.answered(row, int(label), float(confidence))
    assert one.summary("m", ref, 1.0, 0, None, None) == many.summary("m", ref, 1.0, 0, None, None)
