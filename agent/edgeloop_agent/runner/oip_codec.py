"""The Open Inference Protocol V2's messages, with the binary tensor extension; no IO.

Invariants: what is wrong with a request is a RequestError with an HTTP status and words; nothing
is taken from a request but numbers. What a client feeds is an example as every other source gives
it, so its inputs are those that stand before preprocessing and quantisation; what it is given is
one score a label, the label and the confidence.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.runner.inference import Answer
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.preprocessing import Floats

EXAMPLES_MAX: Final = 1024
"""In one request."""

VALUES: Final = "values"
LABEL: Final = "label"
CONFIDENCE: Final = "confidence"
_DTYPES: Final = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}


class RequestError(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Question:
    """`values` (n, …): one example each. `outputs`: name → whether its tensor is to be binary."""

    id: str
    values: Floats
    outputs: dict[str, bool]
    begins: bool


class Interface:
    """What clients of one version feed and are given."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._columns: dict[str, tuple[tuple[int, ...], NDArray[np.intp]]] = {}
        names = [feature.name for feature in manifest.features]
        preprocessing = manifest.preprocessing
        self._windowed = preprocessing.kind != "none"
        self._shape: tuple[int, ...] = (len(names),)
        if self._windowed:
            self._shape = (preprocessing.rows or 0, len(preprocessing.channels))
            self._columns[VALUES] = (self._shape, np.arange(0, dtype=np.intp))
        elif not manifest.feeds:
            spec = manifest.inputs[0]
            inner = tuple(size for size in spec.shape[1:] if size is not None)
            shape = inner if math.prod(inner) == len(names) else self._shape
            self._columns[spec.name] = (shape, np.arange(len(names), dtype=np.intp))
        else:
            shapes = {spec.name: spec.shape[1:] for spec in manifest.inputs}
            for feed in manifest.feeds:
                if feed.features:
                    inner = tuple(size for size in shapes[feed.input] if size is not None)
                    columns = np.array([names.index(f) for f in feed.features], dtype=np.intp)
                    shape = inner if math.prod(inner) == len(columns) else (len(columns),)
                    self._columns[feed.input] = (shape, columns)
        self.outputs = (manifest.scores_output, LABEL, CONFIDENCE)

    def metadata(self, name: str) -> dict[str, Any]:
        labels = len(self.manifest.labels)
        return {
            "name": name,
            "versions": [self.manifest.version],
            "platform": f"edgeloop_{self.manifest.artifact.runtime}",
            "inputs": [
                {"name": one, "datatype": "FP32", "shape": [-1, *shape]}
                for one, (shape, _) in self._columns.items()
            ],
            "outputs": [
                {"name": self.manifest.scores_output, "datatype": "FP32", "shape": [-1, labels]},
                {"name": LABEL, "datatype": "BYTES", "shape": [-1]},
                {"name": CONFIDENCE, "datatype": "FP32", "shape": [-1]},
            ],
        }

    def question(self, body: bytes, header_bytes: int | None) -> Question:
        """`header_bytes`: how much of the body is JSON; the rest is binary tensors."""
        document = _document(body if header_bytes is None else body[:header_bytes])
        binary = memoryview(b"" if header_bytes is None else body[header_bytes:])
        parameters = _parameters(document)
        given: dict[str, Floats] = {}
        for tensor in _list(document, "inputs"):
            name, values, used = self._input(tensor, binary)
            if name in given:
                raise RequestError(400, f"input {name!r} is there twice")
            given[name], binary = values, binary[used:]
        if len(binary):
            raise RequestError(400, f"{len(binary)} bytes belong to no input")
        return Question(
            id=str(document.get("id", ""))[:100],
            values=self._example_values(given),
            outputs=self._wanted(document, parameters.get("binary_data_output") is True),
            begins=parameters.get("sequence_start") is True,
        )

    def _input(self, tensor: Any, binary: memoryview) -> tuple[str, Floats, int]:
        if not isinstance(tensor, dict):
            raise RequestError(400, "an input is not an object")
        name, datatype = tensor.get("name"), tensor.get("datatype")
        if name not in self._columns:
            raise RequestError(400, f"no input {name!r}; there are {', '.join(self._columns)}")
        dtype, shape = _DTYPES.get(str(datatype)), tensor.get("shape")
        if dtype is None:
            raise RequestError(400, f"input {name!r} has datatype {datatype!r}")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise RequestError(400, f"input {name!r} has shape {shape!r}")
        inner = self._columns[name][0]
        if not shape or math.prod(shape[1:]) != math.prod(inner):
            raise RequestError(400, f"input {name!r} has shape {shape}; it takes {[-1, *inner]}")
        if not 1 <= shape[0] <= EXAMPLES_MAX:
            raise RequestError(400, f"{shape[0]} examples; a request takes 1 to {EXAMPLES_MAX}")
        flat, used = _numbers(tensor, dtype, math.prod(shape), binary)
        return str(name), flat.reshape((shape[0], *inner)).astype(np.float32), used

    def _example_values(self, given: dict[str, Floats]) -> Floats:
        missing = self._columns.keys() - given.keys()
        if missing:
            raise RequestError(400, f"inputs are missing: {', '.join(sorted(missing))}")
        counts = {len(values) for values in given.values()}
        if len(counts) != 1:
            raise RequestError(400, "inputs have different numbers of examples")
        if self._windowed:
            return given[VALUES]
        vectors = np.empty((counts.pop(), *self._shape), dtype=np.float32)
        for name, values in given.items():
            vectors[:, self._columns[name][1]] = values.reshape(len(values), -1)
        return vectors

    def _wanted(self, document: dict[str, Any], binary: bool) -> dict[str, bool]:
        if not document.get("outputs"):
            return dict.fromkeys(self.outputs, binary)
        wanted = {}
        for output in _list(document, "outputs"):
            name = output.get("name") if isinstance(output, dict) else None
            if name not in self.outputs:
                raise RequestError(400, f"no output {name!r}; there are {', '.join(self.outputs)}")
            wanted[name] = _parameters(output).get("binary_data", binary) is True
        return wanted

    def answer(
        self, name: str, question: Question, answers: Sequence[Answer]
    ) -> tuple[bytes, int | None]:
        """The body, and how much of it is JSON where binary tensors follow."""
        labels = self.manifest.labels
        tensors, tail = [], b""
        for output, is_binary in question.outputs.items():
            tensor: dict[str, Any] = {"name": output, "shape": [len(answers)]}
            if output == LABEL:
                texts = [labels[one.label] for one in answers]
                tensor["datatype"] = "BYTES"
                data: list[Any] = texts
                raw = b"".join(_counted(text.encode()) for text in texts) if is_binary else b""
            else:
                if output == CONFIDENCE:
                    values = np.array([one.confidence for one in answers], dtype="<f4")
                else:
                    values = np.array([one.scores for one in answers], dtype="<f4")
                    tensor["shape"] = list(values.shape)
                tensor["datatype"] = "FP32"
                data = [] if is_binary else values.ravel().tolist()
                raw = values.tobytes() if is_binary else b""
            if is_binary:
                tensor["parameters"] = {"binary_data_size": len(raw)}
                tail += raw
            else:
                tensor["data"] = data
            tensors.append(tensor)
        document = {
            "model_name": name,
            "model_version": self.manifest.version,
            **({"id": question.id} if question.id else {}),
            "outputs": tensors,
        }
        head = json.dumps(document, separators=(",", ":")).encode()
        return head + tail, len(head) if any(question.outputs.values()) else None


def _numbers(
    tensor: dict[str, Any], dtype: np.dtype[Any], count: int, binary: memoryview
) -> tuple[NDArray[Any], int]:
    """So many, and how much of `binary` they took."""
    name, size = tensor.get("name"), _parameters(tensor).get("binary_data_size")
    if size is not None:
        if size != count * dtype.itemsize or size > len(binary):
            raise RequestError(400, f"input {name!r} has {size} bytes for {count} numbers")
        return np.frombuffer(binary[:size], dtype=dtype), size
    try:
        flat = np.asarray(tensor["data"], dtype=dtype).ravel()
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise RequestError(400, f"input {name!r}: {error!r}") from error
    if len(flat) != count:
        raise RequestError(400, f"input {name!r} has {len(flat)} numbers for {count} in its shape")
    return flat, 0


def _counted(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is not JSON") from error
    if not isinstance(document, dict):
        raise RequestError(400, "the body is not a JSON object")
    return document


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list) or not found:
        raise RequestError(400, f"{key} is not a list of tensors")
    return found


def _parameters(document: dict[str, Any]) -> dict[str, Any]:
    found = document.get("parameters")
    return found if isinstance(found, dict) else {}
