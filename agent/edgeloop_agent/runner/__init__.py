"""The runner: the child process that owns everything that touches a model.

Invariants: only this package of the agent imports numpy and a runtime; a runner ends when the
supervisor's end of its socketpair closes.
"""

from edgeloop_protocol.onnx_telemetry import opt_out

opt_out()
