"""Pairs of model files for `make bench-delta`: a network of 4.2 million weights (16.6 MB as fp32),
trained, and then changed in the ways that updates change models.

Invariants: the same for the same seed and numpy; trained by Adam in numpy, so nothing else is
needed; int8 files hold the same weights, quantized for each column anew, as a quantizer does it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
Layers = list[Floats]

SIZES: Final = (64, 1440, 1440, 1440, 10)
BATCH: Final = 64
BASE_STEPS: Final = 60
FINE_TUNE_STEPS: Final = 30
LEARNING_RATE: Final = 1e-3
FINE_TUNE_RATES: Final = (1e-5, 1e-3)
FEW_SHARE: Final = 0.01


@dataclass(frozen=True)
class Pair:
    what: str
    base: bytes
    new: bytes


class Network:
    """A multi-layer perceptron over made-up classes, and its optimizer."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.layers: Layers = [
            (random.normal(size=shape) * np.sqrt(2 / shape[0])).astype(np.float32)
            for shape in pairwise(SIZES)
        ]
        self._centres = random.normal(size=(SIZES[-1], SIZES[0])).astype(np.float32)

    def train(self, layers: Layers, steps: int, rate: float, seed: int, shift: float) -> Layers:
        """By Adam, on examples drawn with `seed`; `shift` moves their classes."""
        random = np.random.default_rng(seed)
        centres = self._centres + np.float32(shift) * random.normal(size=self._centres.shape)
        layers = [layer.copy() for layer in layers]
        first = [np.zeros_like(layer) for layer in layers]
        second = [np.zeros_like(layer) for layer in layers]
        for step in range(1, steps + 1):
            labels = random.integers(0, SIZES[-1], BATCH)
            noise = random.normal(size=(BATCH, SIZES[0]))
            inputs = (centres[labels] + noise).astype(np.float32)
            for number, gradient in enumerate(_gradients(layers, inputs, labels)):
                first[number] += np.float32(0.1) * (gradient - first[number])
                second[number] += np.float32(0.001) * (gradient * gradient - second[number])
                mean = first[number] / np.float32(1 - 0.9**step)
                spread = np.sqrt(second[number] / np.float32(1 - 0.999**step)) + np.float32(1e-8)
                layers[number] -= np.float32(rate) * mean / spread
        return layers


def _gradients(layers: Layers, inputs: Floats, labels: NDArray[np.int64]) -> Layers:
    outputs = [inputs]
    for layer in layers[:-1]:
        outputs.append(np.maximum(outputs[-1] @ layer, 0))
    scores = outputs[-1] @ layers[-1]
    scores -= scores.max(axis=1, keepdims=True)
    error = np.exp(scores)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    gradients = []
    for layer, output in zip(reversed(layers), reversed(outputs), strict=True):
        gradients.append(output.T @ error)
        error = (error @ layer.T) * (output > 0)
    return gradients[::-1]


def pairs() -> Iterator[Pair]:
    network = Network(seed=0)
    base = network.train(network.layers, BASE_STEPS, LEARNING_RATE, seed=1, shift=0.0)
    changes = {
        "last layer": [*base[:-1], network.train(base, 20, LEARNING_RATE, 2, 0.3)[-1]],
        "1% of weights": _few_changed(base),
    }
    for rate in FINE_TUNE_RATES:
        changes[f"fine-tune, rate {rate:g}"] = network.train(base, FINE_TUNE_STEPS, rate, 4, 0.3)
    for kind, encode in (("fp32", fp32_model), ("int8", int8_model)):
        encoded = encode(base)
        for what, layers in changes.items():
            yield Pair(f"{what}, {kind}", encoded, encode(layers))


def _few_changed(layers: Layers) -> Layers:
    random = np.random.default_rng(3)
    changed = []
    for layer in layers:
        few = random.random(layer.shape) < FEW_SHARE
        moved = layer + random.normal(size=layer.shape) * layer.std() * 0.1
        changed.append(np.where(few, moved, layer).astype(np.float32))
    return changed


def fp32_model(layers: Layers) -> bytes:
    nodes, weights, at = [], [], "x"
    for number, layer in enumerate(layers):
        weights.append(numpy_helper.from_array(layer, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [at, f"w{number}"], [f"s{number}"]))
        nodes.append(helper.make_node("Relu", [f"s{number}"], [f"h{number}"]))
        at = f"h{number}"
    return _model(nodes, weights, at)


def int8_model(layers: Layers) -> bytes:
    """Weights as int8 with a scale for each column, dequantized as the model runs."""
    nodes, weights, at = [], [], "x"
    for number, layer in enumerate(layers):
        scale = (np.abs(layer).max(axis=0) / 127).astype(np.float32)
        quantized = np.clip(np.rint(layer / scale), -127, 127).astype(np.int8)
        weights.append(numpy_helper.from_array(quantized, f"q{number}"))
        weights.append(numpy_helper.from_array(scale, f"scale{number}"))
        inputs = [f"q{number}", f"scale{number}"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"w{number}"], axis=1))
        nodes.append(helper.make_node("MatMul", [at, f"w{number}"], [f"s{number}"]))
        nodes.append(helper.make_node("Relu", [f"s{number}"], [f"h{number}"]))
        at = f"h{number}"
    return _model(nodes, weights, at)


def _model(nodes: list[object], weights: list[object], output: str) -> bytes:
    graph = helper.make_graph(
        nodes,
        "delta",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, SIZES[0]])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, SIZES[-1]])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())
