"""Real models for the runtime contract: of our own making, and the wake words of a PyPI package."""

import importlib.util
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def onnx_of(nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs],
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in outputs],
        [
            numpy_helper.from_array(np.asarray(array, np.float32), name)
            for name, array in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def two_inputs():
    """Softmax of a weighted sum of `motion` (3) and `heat` (1)."""
    return onnx_of(
        [
            helper.make_node("MatMul", ["motion", "wm"], ["a"]),
            helper.make_node("MatMul", ["heat", "wh"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Softmax", ["sum"], ["p"], axis=1),
        ],
        [("motion", FLOAT, [None, 3]), ("heat", FLOAT, [None, 1])],
        [("p", FLOAT, [None, 2])],
        {"wm": [[1, -1], [0.5, 0.5], [-1, 1]], "wh": [[2, -2]]},
    )


def counter():
    """Its state is the sum of all x before; the second label wins once that is above 2."""
    return onnx_of(
        [
            helper.make_node("Add", ["x", "sum_in"], ["sum_out"]),
            helper.make_node("MatMul", ["sum_out", "w"], ["scaled"]),
            helper.make_node("Add", ["scaled", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        ],
        [("x", FLOAT, [1, 1]), ("sum_in", FLOAT, [1, 1])],
        [("p", FLOAT, [1, 2]), ("sum_out", FLOAT, [1, 1])],
        {"w": [[0, 5]], "b": [[0, -10]]},
    )


def gru(hidden=4, features=3, seed=3):
    """A recurrent network: GRU state in, GRU state out."""
    random = np.random.default_rng(seed)
    return onnx_of(
        [
            helper.make_node("Unsqueeze", ["x", "axis"], ["sequence"]),
            helper.make_node(
                "GRU", ["sequence", "w", "r", "", "", "h_in"], ["", "h_out"], hidden_size=hidden
            ),
            helper.make_node("Squeeze", ["h_out", "axis"], ["h"]),
            helper.make_node("MatMul", ["h", "o"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        ],
        [("x", FLOAT, [1, features]), ("h_in", FLOAT, [1, 1, hidden])],
        [("p", FLOAT, [1, 2]), ("h_out", FLOAT, [1, 1, hidden])],
        {
            "w": random.normal(size=(1, 3 * hidden, features)),
            "r": random.normal(size=(1, 3 * hidden, hidden)),
            "o": 3 * random.normal(size=(hidden, 2)),
        },
    )


def _with_axis(model):
    import onnx

    proto = onnx.load_model_from_string(model)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    return proto.SerializeToString()


GRU = _with_axis(gru())


def wake_words() -> Path:
    """Read as files: the package itself is only imported where it is the reference."""
    found = importlib.util.find_spec("pymicro_wakeword")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "models"


SAMPLES_PER_S = 16_000
BABBLE_SEEDS = {"alexa": 36, "hey_jarvis": 56, "hey_mycroft": 14, "okay_nabu": 6}


def babble(seed: int, seconds: int = 2) -> bytes:
    """16-bit sound of bursts with a voice's overtones; wake words are not quite sure of it."""
    random = np.random.default_rng(seed)
    at = np.arange(SAMPLES_PER_S * seconds) / SAMPLES_PER_S
    sound, begins = np.zeros(at.size), 0.0
    while begins < seconds - 0.4:
        lasts = random.uniform(0.08, 0.3)
        part = slice(int(begins * SAMPLES_PER_S), int((begins + lasts) * SAMPLES_PER_S))
        pitch = random.uniform(90, 220)
        for overtone in range(1, 30):
            hertz = pitch * overtone
            formants = random.uniform(250, 3200, 3)
            loud = np.exp(-(((hertz - formants) / 120) ** 2)).sum()
            sound[part] += loud * np.sin(2 * np.pi * hertz * at[part])
        begins += lasts + random.uniform(0, 0.1)
    noise = 50 * random.normal(size=at.size)
    return (8000 * sound / np.abs(sound).max() + noise).astype(np.int16).tobytes()


def heard(name: str, examples: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """What a wake-word model is fed of a babble (examples, 120), and what its own package, which
    brings another TFLite, says to it (examples, 2)."""
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

    reference = MicroWakeWord.from_config(wake_words() / f"{name}.json")
    frames = list(MicroWakeWordFeatures().process_streaming(babble(BABBLE_SEEDS[name])))
    inputs, outputs = [], []
    for start in range(0, 3 * min(examples, len(frames) // 3), 3):
        window = frames[start : start + 3]
        for frame in window:
            reference.process_streaming_prob(frame)
        likely = reference._probabilities[-1]
        inputs.append(np.concatenate([frame.ravel() for frame in window]))
        outputs.append((1 - likely, likely))
    return np.array(inputs, dtype=np.float32), np.array(outputs)
