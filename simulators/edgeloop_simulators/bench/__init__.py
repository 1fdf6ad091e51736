"""`make bench`: what Edgeloop costs, each figure beside a floor that was measured in the same run.

Invariants: ratios are the result, absolute figures the evidence; CPU time where a machine's noise
would blur wall time; every measured program is the real one.
"""

from edgeloop_protocol.onnx_telemetry import opt_out

opt_out()
