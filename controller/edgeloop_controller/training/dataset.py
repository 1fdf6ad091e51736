"""Labelled samples -> what a training script gets, and what it never sees.

Invariants: the split is by a hash of the sample's reference alone, so that one window that was sent
twice, or by several devices, never stands on both sides, and falls on the same side in every run.
A reference says where a sample's raw data is on its device: two devices may use the same one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgeloop_controller.errors import TrainingError
from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import VersionRef

Floats = NDArray[np.float32]

INPUT_FILE: Final = "input.json"
TRAIN_FILE: Final = "train.parquet"


@dataclass(frozen=True)
class LabelledSample:
    """A sample with its label; `features` as stored: float32 little-endian.

    `subset` names a part to be counted by itself, such as "before_drift" and "since_drift";
    `recent` marks those on which the disagreement with the parent is measured.
    """

    reference: str
    device_id: str
    taken_at: float
    version: str
    features: bytes
    label: str
    subset: str = ""
    recent: bool = True


@dataclass(frozen=True)
class HeldBack:
    """What the script never sees: features (n, features), label names, subset names, recency."""

    features: Floats
    labels: tuple[str, ...]
    subsets: tuple[str, ...]
    recent: tuple[bool, ...]


@dataclass(frozen=True)
class Split:
    train: tuple[LabelledSample, ...]
    held_back: tuple[LabelledSample, ...]


class TrainingInput(Config):
    """input.json: the whole contract with a training script, besides its two arguments.

    The script reads `train_file` (Parquet: one column per feature, then `label`, `reference`,
    `device`, `taken_at`, `version`, `subset`: `before_drift` or `since_drift`) and writes
    `model.onnx` into the output directory; it may also write `model.toml` and `baseline.parquet`
    there. Without model.toml the parent's preprocessing, labels and sensors are taken over.

    The split knows a window by its reference only. Windows that overlap (a hop shorter than the
    window) share raw data under different references, and may stand on both sides: the held-back
    accuracies of candidate and parent are then too high alike. Sample windows that do not overlap
    where that matters.
    """

    input_version: Literal[1] = 1
    run_id: int | None
    policy: str
    model: str
    slot: str
    parent: VersionRef | None
    labels: tuple[str, ...]
    features: tuple[str, ...]
    train_file: str | None
    rows: int
    inputs: dict[str, str]
    data_from: float | None
    data_to: float | None
    devices: tuple[str, ...]


def split(samples: Sequence[LabelledSample], held_back_fraction: float) -> Split:
    """Each reference on one side, by its hash; of one that a device sent twice, the last counts."""
    distinct = {(sample.device_id, sample.reference): sample for sample in samples}
    kept = [s for s in distinct.values() if not _is_held_back(s.reference, held_back_fraction)]
    back = [s for s in distinct.values() if _is_held_back(s.reference, held_back_fraction)]
    return Split(train=tuple(kept), held_back=tuple(back))


def held_back(samples: Sequence[LabelledSample], features: Sequence[str]) -> HeldBack:
    """As arrays. Raises TrainingError when a sample's features are not as many as `features`."""
    return HeldBack(
        features=_matrix(samples, len(features)),
        labels=tuple(sample.label for sample in samples),
        subsets=tuple(sample.subset for sample in samples),
        recent=tuple(sample.recent for sample in samples),
    )


def write_training_input(
    directory: Path,
    train: Sequence[LabelledSample],
    features: Sequence[str],
    labels: Sequence[str],
    *,
    run_id: int | None,
    policy: str,
    model: str,
    slot: str,
    parent: VersionRef | None,
    inputs: dict[str, str],
) -> TrainingInput:
    """Write train.parquet and input.json into `directory` (made if absent). Raises TrainingError.

    `inputs` must be absolute or are resolved against the working directory; a file that is not
    there is an error that names it.
    """
    found = {name: _existing(name, path) for name, path in inputs.items()}
    directory.mkdir(parents=True, exist_ok=True)
    train_file = directory.resolve() / TRAIN_FILE
    if train:
        pq.write_table(_table(train, features), train_file)
    times = [sample.taken_at for sample in train]
    document = TrainingInput(
        run_id=run_id,
        policy=policy,
        model=model,
        slot=slot,
        parent=parent,
        labels=tuple(labels),
        features=tuple(features),
        train_file=str(train_file) if train else None,
        rows=len(train),
        inputs=found,
        data_from=min(times, default=None),
        data_to=max(times, default=None),
        devices=tuple(sorted({sample.device_id for sample in train})),
    )
    (directory / INPUT_FILE).write_text(document.model_dump_json(indent=2), encoding="utf-8")
    return document


def _is_held_back(reference: str, fraction: float) -> bool:
    """By the first 64 bits of the reference's SHA-256, as a number in [0, 1)."""
    digest = hashlib.sha256(reference.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def _matrix(samples: Sequence[LabelledSample], width: int) -> Floats:
    rows = [np.frombuffer(sample.features, dtype="<f4") for sample in samples]
    for sample, row in zip(samples, rows, strict=True):
        if len(row) != width:
            raise TrainingError(
                f"sample {sample.reference!r} of {sample.device_id} has {len(row)} features; the "
                f"model has {width}",
                "train on samples of versions with the same features",
            )
    matrix = np.stack(rows) if rows else np.zeros((0, width))
    return np.asarray(matrix, dtype=np.float32)


def _table(samples: Sequence[LabelledSample], features: Sequence[str]) -> pa.Table:
    matrix = _matrix(samples, len(features))
    columns = {name: pa.array(matrix[:, i]) for i, name in enumerate(features)}
    told = {
        "label": [sample.label for sample in samples],
        "reference": [sample.reference for sample in samples],
        "device": [sample.device_id for sample in samples],
        "taken_at": [sample.taken_at for sample in samples],
        "version": [sample.version for sample in samples],
        "subset": [sample.subset for sample in samples],
    }
    clash = sorted(set(columns) & set(told))
    if clash:
        raise TrainingError(
            f"features named {', '.join(clash)} clash with columns of the training file",
            "rename them in the model",
        )
    return pa.table(columns | told)


def _existing(name: str, path: str) -> str:
    resolved = Path(path).expanduser().resolve()
    if not resolved.exists():
        raise TrainingError(
            f"input {name!r} of the policy is not there: {resolved}",
            "correct its path in the policy file",
        )
    return str(resolved)
