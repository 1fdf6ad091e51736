"""The one shape in which every dataset comes to the testbed.

Invariants: the windows of different devices share no row, nor do those of a device and those to
train on; `base` and `baseline` are in time order within a group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgeloop_protocol.manifest import Preprocessing
from edgeloop_protocol.preprocessing import features

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """One example: `values` is (rows, channels), or (channels,) where a row is an example."""

    reference: str
    label: str
    group: str
    values: Floats


@dataclass(frozen=True)
class Portion:
    """What one device will see: before the world changes, and after."""

    device_id: str
    group: str
    before: tuple[Window, ...]
    after: tuple[Window, ...]


@dataclass(frozen=True)
class Dataset:
    """`base` is what the first version trains on; `baseline`, what its baseline is taken from."""

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    base: tuple[Window, ...]
    baseline: tuple[Window, ...]
    portions: tuple[Portion, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.preprocessing.feature_names() or self.channels


def play(windows: tuple[Window, ...], block: int, rng: Random) -> Iterator[Window]:
    """For ever: blocks of up to `block` consecutive windows of one label, in shuffled order.

    Every loop plays every window once, so a stream as long as the portion has its mix of labels.
    """
    by_label: dict[str, list[Window]] = {}
    for window in windows:
        by_label.setdefault(window.label, []).append(window)
    blocks = [
        same[start : start + block]
        for same in by_label.values()
        for start in range(0, len(same), block)
    ]
    while True:
        rng.shuffle(blocks)
        for one in blocks:
            yield from one


def write_windows(dataset: Dataset, windows: tuple[Window, ...], path: Path) -> None:
    """Parquet, as `windows_table`."""
    pq.write_table(windows_table(dataset, windows), path)


def windows_table(dataset: Dataset, windows: tuple[Window, ...]) -> pa.Table:
    """One column per feature, then `label`, `group` and `reference`."""
    matrix = features(dataset.preprocessing, np.stack([w.values for w in windows]))
    columns: dict[str, object] = {
        name: pa.array(matrix[:, i]) for i, name in enumerate(dataset.feature_names)
    }
    columns["label"] = pa.array([w.label for w in windows])
    columns["group"] = pa.array([w.group for w in windows])
    columns["reference"] = pa.array([w.reference for w in windows])
    return pa.table(columns)
