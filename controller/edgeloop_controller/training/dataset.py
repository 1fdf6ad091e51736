"""Labelled samples -> what a training script gets, and what it never sees.

Invariants: the split is by a hash of the sample's reference, so that one window that was sent twice
never stands on both sides, and the same window falls on the same side in every run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import VersionRef

Floats = NDArray[np.float32]


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
    `device`, `taken_at`, `version`) and writes `model.onnx` into the output directory; it may also
    write `model.toml` and `baseline.parquet` there. Without model.toml the parent's preprocessing,
    labels and sensors are taken over.
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
    """Each reference on one side, by its hash; of a reference sent twice, the last one counts."""
    raise NotImplementedError


def held_back(samples: Sequence[LabelledSample], features: Sequence[str]) -> HeldBack:
    """As arrays. Raises TrainingError when a sample's features are not as many as `features`."""
    raise NotImplementedError


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
    raise NotImplementedError
