"""ONNX Runtime keeps its usage data to itself.

From 1.29 on its Linux packages send usage data to their makers, and keep a device's identifier and
what is not sent yet under ~/.cache, unless the environment says otherwise before they are imported
(microsoft/onnxruntime#27379). Nothing leaves a device that its owner did not ask for.

Invariant: whoever imports onnxruntime called `opt_out` first; an owner who set the variable has
the last word.
"""

import os
from typing import Final

VARIABLE: Final = "ORT_DISABLE_TELEMETRY"


def opt_out() -> None:
    """Also of the processes that are started from here."""
    os.environ.setdefault(VARIABLE, "1")
