"""From feature vectors to inputs, from outputs to scores; and manifests that say how."""

import json

import numpy as np
import pytest

from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.feeding import Feeder, per_label, quantised, real
from edgeloop_protocol.manifest import Feed, Manifest, Quantisation, TensorSpec

FLOAT3 = TensorSpec(name="a", dtype="float32", shape=(None, 3))
STATE = TensorSpec(name="s", dtype="float32", shape=(1, 2))
INT8 = TensorSpec(
    name="q", dtype="int8", shape=(1, 4), quantisation=Quantisation(scale=0.5, zero_point=-3)
)


def test_features_go_to_the_inputs_that_name_them():
    feeds = (Feed(input="a", features=("z", "x", "y")), Feed(input="s", state_of="out"))
    feeder = Feeder((FLOAT3, STATE), feeds, ("x", "y", "z"))
    tensors = feeder.tensors(np.array([[1, 2, 3]], dtype=np.float32))
    assert tensors["a"].tolist() == [[3, 1, 2]]
    assert feeder.with_state(tensors)["s"].tolist() == [[0, 0]]
    feeder.keep({"out": np.array([[5, 6]], dtype=np.float32)})
    assert feeder.with_state(tensors)["s"].tolist() == [[5, 6]]
    feeder.reset()
    assert feeder.with_state(tensors)["s"].tolist() == [[0, 0]]
    assert not feeder.takes_several
    with pytest.raises(ManifestError, match="has shape"):
        feeder.keep({"out": np.zeros((2, 2), dtype=np.float32)})


@pytest.mark.parametrize("values", [[-100.0, 0.0, 0.5, 100.0]])
def test_quantised_and_back_is_the_nearest_that_can_be_held(values):
    held = quantised(np.array([values], dtype=np.float32), INT8)
    assert held.dtype == np.int8
    assert held.tolist() == [[-128, -3, -2, 127]]
    assert real(held, INT8.quantisation).tolist() == [[-62.5, 0.0, 0.5, 65.0]]


def test_one_score_of_two_labels_is_how_likely_the_second_is():
    assert per_label(np.array([[0.25]]), 2).tolist() == [[0.75, 0.25]]
    assert per_label(np.array([[0.25]]), 1).tolist() == [[0.25]]


def manifest(**changes):
    return Manifest.model_validate(
        {
            "name": "m",
            "version": "1",
            "artifact": {"digest": "0" * 64, "size_bytes": 1},
            "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 2]}],
            "outputs": [{"name": "p", "dtype": "float32", "shape": [None, 2]}],
            "scores_output": "p",
            "features": [{"name": "a", "sensor": "a"}, {"name": "b", "sensor": "b"}],
            "labels": ["no", "yes"],
            **changes,
        }
    )


def test_the_identity_of_a_manifest_without_the_later_keys_is_what_it_was():
    document = json.loads(manifest().canonical())
    assert not {"feeds", "stateful"} & document.keys()
    assert "quantisation" not in document["inputs"][0]
    stateful = manifest(stateful=True)
    assert json.loads(stateful.canonical())["stateful"] is True
    assert Manifest.model_validate_json(stateful.canonical()) == stateful


TWO = [
    {"name": "x", "dtype": "float32", "shape": [1, 2]},
    {"name": "s", "dtype": "float32", "shape": [1, 4]},
]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": TWO}, "2 inputs need feeds"),
        ({"feeds": [{"input": "y", "features": ["a", "b"]}]}, "name each input once: x"),
        ({"feeds": [{"input": "x", "features": ["a"]}]}, "differ in b"),
        ({"feeds": [{"input": "x"}]}, "needs one of features, state_of and constant"),
        (
            {
                "inputs": TWO,
                "stateful": True,
                "feeds": [
                    {"input": "x", "features": ["a", "b"]},
                    {"input": "s", "state_of": "nowhere"},
                ],
            },
            "no such output",
        ),
        (
            {
                "inputs": TWO,
                "outputs": [
                    {"name": "p", "dtype": "float32", "shape": [1, 2]},
                    {"name": "t", "dtype": "float32", "shape": [1, 4]},
                ],
                "feeds": [
                    {"input": "x", "features": ["a", "b"]},
                    {"input": "s", "state_of": "t"},
                ],
            },
            "is stateful",
        ),
    ],
)
def test_feeds_that_do_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        manifest(**changes)
