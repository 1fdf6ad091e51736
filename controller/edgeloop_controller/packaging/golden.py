"""Golden examples: a few inputs, far apart, with the outputs that a faithful runtime gives.

Invariants: deterministic; every output is finite.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

GOLDEN_EXAMPLES: Final = 8
SYNTHETIC_SEED: Final = 1


def spread_rows(features: Floats, count: int = GOLDEN_EXAMPLES) -> NDArray[np.intp]:
    """Indices of up to `count` distinct rows that lie far apart, the most central one first.

    Farthest-point selection (Gonzalez 1985) on standardised columns.
    """
    scale = features.std(axis=0)
    points = (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1)
    chosen = [int(np.argmin((points**2).sum(axis=1)))]
    distances = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and distances.max() > 0:
        chosen.append(int(np.argmax(distances)))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen, dtype=np.intp)


def synthetic_rows(width: int) -> Floats:
    """Where there is no data: zeros, then normal values at three scales; same every time."""
    rng = np.random.default_rng(SYNTHETIC_SEED)
    scales = np.resize([0.1, 1.0, 10.0], (GOLDEN_EXAMPLES - 1, 1))
    drawn = rng.normal(size=(GOLDEN_EXAMPLES - 1, width)) * scales
    return np.concatenate([np.zeros((1, width)), drawn]).astype(np.float32)
