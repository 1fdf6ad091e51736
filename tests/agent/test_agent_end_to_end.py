"""Real agents with real runners, a real mosquitto, and a scripted controller (DESIGN §4)."""

import os
import signal

import pytest

from edgeloop_protocol.lifecycle import SlotState

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("agent_e2e")]


def test_install_serve_report_and_stop(agent, controller, artifact_server, make_package, wait_until):
    package = make_package()
    artifact_server.publish(package)
    controller.offer(package)
    agent.start()
    wait_until(lambda: controller.runs(package), what="version 1 is committed")
    assert controller.slot.state is SlotState.COMMITTED
    wait_until(lambda: any(w.count and w.sketches for w in controller.bodies("window")))
    window = next(w for w in controller.bodies("window") if w.count)
    assert sum(window.predictions) == window.count
    assert sum(window.confidence) == window.count
    assert all(sum(histogram) == window.count for histogram in window.features)
    assert window.latency_p95_us >= window.latency_p50_us > 0
    wait_until(lambda: controller.bodies("sample"))
    assert controller.bodies("sample")[0].reference.startswith("stream.csv#")
    assert agent.answers_path.exists()
    runtime = controller.hellos[0].inventory.runtimes[0]
    assert runtime.name == "onnx"
    assert runtime.max_opset >= 17
    assert agent.stop() == 0
    assert agent.status()["running"] is False
    names = [event.name for event in controller.bodies("event")]
    assert {"agent_started", "offer_accepted", "committed"} <= set(names)
