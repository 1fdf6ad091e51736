"""Real TFLite files, and what a fine-tune would make of one."""

import importlib.util
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

_SPEC = importlib.util.find_spec("pymicro_wakeword")
assert _SPEC is not None
assert _SPEC.origin is not None
MODELS = Path(_SPEC.origin).parent / "models"
WEIGHTS_MIN = 1000
"""A smaller tensor is no layer's weights."""


def wake_word(name: str) -> bytes:
    return (MODELS / f"{name}.tflite").read_bytes()


def fine_tuned(model: bytes, seed: int, share: float = 0.1) -> bytes:
    """`share` of the int8 weights is one step up or down: what changes, and nothing else."""
    random = np.random.default_rng(seed)
    interpreter = Interpreter(model_content=model)
    changed = bytearray(model)
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] is not np.int8 or np.prod(tensor["shape"]) < WEIGHTS_MIN:
            continue
        try:
            weights = interpreter.get_tensor(tensor["index"]).ravel()
        except ValueError:  # made while the model runs
            continue
        place = model.find(weights.tobytes())
        if place >= 0:
            steps = random.choice([-1, 0, 1], weights.shape, p=[share / 2, 1 - share, share / 2])
            moved = np.clip(weights.astype(int) + steps, -127, 127).astype(np.int8)
            changed[place : place + len(moved)] = moved.tobytes()
    return bytes(changed)
