"""ONNX Runtime's telemetry is off where Edgeloop runs it, also for who never heard of it."""

import subprocess
import sys

import pytest

from edgeloop_protocol.onnx_telemetry import VARIABLE

IMPORTS = {
    "runner": "import edgeloop_agent.runner.runtime_onnx",
    "probe": "import edgeloop_agent.runner.onnx_limits",
    "packaging": "from edgeloop_controller.packaging import runtime_child\n"
    "runtime_child.onnx_loader()",
    "live": "import edgeloop_simulators.live.inference",
}


def left_behind(code, cache):
    """What the process was told of telemetry, and what onnxruntime keeps of it."""
    say = f"\nimport os\nprint(os.environ.get({VARIABLE!r}))"
    command = [sys.executable, "-c", code + say]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip(), list(cache.rglob("*onnxruntime*"))


@pytest.mark.parametrize("who", IMPORTS)
def test_nothing_is_kept_to_be_sent(who, not_opted_out):
    assert left_behind(IMPORTS[who], not_opted_out) == ("1", [])


def test_it_would_be_kept_else_and_an_owner_may_want_it(not_opted_out, monkeypatch):
    """What the test above looks for is what onnxruntime does by itself."""
    told, kept = left_behind("import onnxruntime", not_opted_out)
    assert told == "None"
    if not kept:
        pytest.skip("this build of onnxruntime has no telemetry")
    monkeypatch.setenv(VARIABLE, "0")
    assert left_behind(IMPORTS["runner"], not_opted_out)[0] == "0"
