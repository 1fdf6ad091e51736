"""Does this runtime give the outputs that the manifest's golden inputs had at publishing?"""

import numpy as np

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.constant_output import constant_output
from edgeloop_agent.runner.model import Model


def self_test(model: Model) -> str | None:
    """None when all golden outputs agree within the tolerance, else what is wrong, in words.

    A manifest without golden examples is tried on zeros: it must answer, with the right shape. One
    that answers the same to everything fails, whatever its golden outputs say.
    """
    golden = model.manifest.golden
    width = len(model.manifest.features)
    inputs = golden.inputs if golden else ((0.0,) * width,)
    try:
        for index, values in enumerate(inputs):
            if len(values) != width:
                return f"golden input {index} has {len(values)} features; the model wants {width}"
            scores = model.run(model.prepare(np.asarray(values, dtype=np.float32)))[0]
            if golden is None:
                continue
            if not np.isfinite(scores).all():
                return f"golden input {index} gives NaN or Inf"
            expected = np.asarray(golden.outputs[index])
            if expected.shape != scores.shape:
                return f"golden output {index} has {expected.shape}; the model gives {scores.shape}"
            off = float(np.abs(scores - expected).max())
            if off > golden.tolerance:
                return f"golden input {index}: off by {off:.3g}; tolerance {golden.tolerance:g}"
    except (ModelLoadError, ValueError) as error:
        return str(error)
    return constant_output(model.manifest, lambda vector: model.run(model.prepare(vector)))
