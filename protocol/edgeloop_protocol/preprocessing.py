"""The manifest's declared preprocessing, computed the same way in training and on the device.

The only module of this package that imports numpy; the supervisor never imports it.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Preprocessing

Floats = NDArray[np.float32]

_STATISTICS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mean": lambda x: x.mean(axis=1),
    "std": lambda x: x.std(axis=1),
    "min": lambda x: x.min(axis=1),
    "max": lambda x: x.max(axis=1),
    "mean_abs_diff": lambda x: np.abs(np.diff(x, axis=1)).mean(axis=1),
    "rms": lambda x: np.sqrt((x * x).mean(axis=1)),
    "median": lambda x: np.median(x, axis=1).astype(np.float32),
    "range": lambda x: np.ptp(x, axis=1),
}


def features(preprocessing: Preprocessing, examples: Floats) -> Floats:
    """Feature vectors of a batch.

    `examples`: (n, rows, channels) for `window_statistics`, (n, features) for `none`.
    Returns (n, features) float32, statistic-major: all channels' first statistic, then the next.
    Raises ManifestError when the examples' shape is not the declared one.
    """
    batch = np.asarray(examples, dtype=np.float32)
    if preprocessing.kind == "none":
        if batch.ndim != 2:
            raise ManifestError(f"examples have shape {batch.shape[1:]}; expected one vector each")
        return batch
    expected = (preprocessing.rows, len(preprocessing.channels))
    if batch.ndim != 3 or batch.shape[1:] != expected:
        raise ManifestError(
            f"examples have shape {batch.shape[1:]}; the manifest's preprocessing wants "
            f"{expected} (rows, channels): fix the source's window or publish for this one"
        )
    columns = [_STATISTICS[name](batch) for name in preprocessing.statistics]
    return np.concatenate(columns, axis=1).astype(np.float32)
