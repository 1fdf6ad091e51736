"""What a model's scores say: the label and how sure it is, by one rule for packaging and devices.

Imports numpy, like `preprocessing`: the supervisor never imports it. Invariant: the baseline's
confidence and a device's confidence come from this function, so that they can be compared.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_protocol.preprocessing import Floats

SUM_TOLERANCE: Final = 1e-3
"""Scores that are not negative and add up to 1 within this are probabilities already."""


def answers(scores: NDArray[Any]) -> tuple[NDArray[np.int64], Floats]:
    """Label indices and confidences in [0, 1] of finite scores of shape (n, labels).

    Probabilities are taken as they are; other scores (logits) go through softmax, row by row.
    """
    rows = np.asarray(scores, dtype=np.float64)
    labels = rows.argmax(axis=1)
    totals = rows.sum(axis=1)
    is_probability = (rows.min(axis=1) >= 0.0) & (np.abs(totals - 1.0) <= SUM_TOLERANCE)
    top = rows.max(axis=1)
    if is_probability.all():
        return labels, np.minimum(top, 1.0).astype(np.float32)
    softmax_top = 1.0 / np.exp(rows - top[:, None]).sum(axis=1)
    return labels, np.where(is_probability, np.minimum(top, 1.0), softmax_top).astype(np.float32)
