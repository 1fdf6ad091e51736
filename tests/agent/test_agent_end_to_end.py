"""Real agents with real runners, a real mosquitto, and a scripted controller (DESIGN §4)."""

import os
import signal
import subprocess
import sys

import pytest

from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.topics import Down

pytestmark = pytest.mark.e2e


def test_install_serve_report_and_stop(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-TOPIC-3, EL-STATE-2."""
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
    said = {"agent_started", "offer_accepted", "committed"}
    wait_until(lambda: said <= {event.name for event in controller.bodies("event")})
    assert agent.stop() == 0
    assert agent.status()["running"] is False


def test_kill_9_of_agent_and_runner(agent, controller, artifact_server, make_package, wait_until):
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.runs(package))

    (runner,) = agent.runner_pids()
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: controller.slot.runner_restarts == 1 and controller.runs(package))
    assert agent.runner_pids() != [runner]

    (runner,) = agent.runner_pids()
    os.kill(runner, signal.SIGSTOP)  # a runner that hangs must not outlive its agent either
    fetched = len(artifact_server.requests)
    agent.kill()
    wait_until(lambda: not agent.runner_pids(), what="the runner dies with its supervisor")
    agent.start()
    wait_until(lambda: len(controller.hellos) >= 2 and controller.runs(package))
    assert controller.hellos[-1].revision == 1
    assert len(artifact_server.requests) == fetched, "what is on disk is not fetched again"
    assert_nothing_lost_or_doubled(agent, controller, wait_until)


def test_broker_away_and_back(
    agent, controller, mosquitto, artifact_server, make_package, wait_until
):
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    mosquitto.stop()
    wait_until(lambda: agent.status()["broker_connected"] is False)
    held = agent.status()["outbox"]["held"]
    wait_until(lambda: agent.status()["outbox"]["held"] > held + 2, what="telemetry is kept")
    mosquitto.start()
    assert_nothing_lost_or_doubled(agent, controller, wait_until)


def test_unacknowledged_telemetry_survives_a_restart(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-TEL-3."""
    package = make_package()
    artifact_server.publish(package)
    controller.acknowledging = False
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: agent.status().get("outbox", {}).get("held", 0) > 4)
    agent.kill()
    controller.acknowledging = True
    agent.start()
    assert_nothing_lost_or_doubled(agent, controller, wait_until, epochs=2)


def assert_nothing_lost_or_doubled(agent, controller, wait_until, epochs=1):
    """All that the agent has numbered by now comes to the controller, each exactly once."""
    wait_until(lambda: len(agent.status().get("outbox", {}).get("epochs", ())) >= epochs)
    numbered = {e["epoch"]: e["appended"] for e in agent.status()["outbox"]["epochs"]}

    def came(epoch):
        return [r.sequence for r in controller.records.get(("dev1", epoch), [])]

    for epoch, appended in numbered.items():
        wait_until(lambda e=epoch, n=appended: len(came(e)) >= n, what=f"{appended} of {epoch}")
        assert came(epoch) == list(range(1, len(came(epoch)) + 1))
    assert sum(numbered.values()) > 3
    assert controller.lost == 0
    assert agent.status()["outbox"]["dropped"] == 0


def test_a_champion_that_was_damaged_on_disk_is_fetched_again(
    agent, controller, artifact_server, make_package, wait_until
):
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    model = agent.state_dir / "models" / package.manifest.digest() / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for pid in agent.runner_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: model.read_bytes() == whole, what="the model is fetched again")
    wait_until(lambda: controller.slot.runner_alive and controller.slot.runner_restarts > 1)
    assert controller.runs(package)


def test_after_a_bad_version_a_good_one_still_installs(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-LIFE-6. Every kind of bad version is tried in test_agent_bad_models.py."""
    good, bad = make_package("1"), make_package("nan", nan=True, golden=None)
    after = make_package("2", weights=[[2.0, -2.0], [0.5, 0.5], [-2.0, 2.0]])
    for package in (good, bad, after):
        artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(good)
    wait_until(lambda: controller.runs(good))
    controller.offer(bad)
    wait_until(lambda: controller.refused(bad) == "nan or inf", what="NaN is rolled back")
    controller.offer(after)
    wait_until(lambda: controller.runs(after), what="a good version still installs")
    assert controller.slot.previous == good.offer.ref
    wait_until(lambda: any(w.comparison for w in controller.bodies("window")))
    compared = next(w for w in controller.bodies("window") if w.comparison)
    assert compared.comparison.shadow == good.offer.ref
    nonfinite = [w for w in controller.bodies("window") if w.version.version == "nan"]
    assert sum(w.nonfinite for w in nonfinite) > 0
    assert sum(w.count for w in nonfinite) == 0


def test_malformed_and_oversized_messages_are_dropped(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-MSG-4."""
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    for payload in (
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"kind":"desired","revision":-1}',
    ):
        controller.raw(Down.DESIRED, payload)
        controller.raw(Down.ACK, payload)
    controller.raw(Down.DESIRED, b" " * (128 * 1024))
    controller.offer(package)
    wait_until(lambda: controller.runs(package), what="those behind are not blocked")
    wait_until(lambda: agent.status()["rejected_messages"] == 13)
    assert sum(e.name == "message_rejected" for e in controller.bodies("event")) == 1


def test_a_download_is_resumed_after_a_kill(
    agent, controller, artifact_server, make_package, wait_until
):
    """EL-ART-2."""
    package = make_package(model=None)
    artifact_server.publish(package)
    artifact_server.artifacts.pop(package.manifest.artifact.digest)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.slot and controller.slot.state is SlotState.DOWNLOADING)
    wait_until(lambda: "404" in controller.slot.waiting)
    part = agent.state_dir / "models" / f"{package.manifest.artifact.digest}.part"
    agent.kill()
    part.write_bytes(package.model[:100])
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.runs(package))
    assert (package.manifest.artifact.digest, "bytes=100-") in artifact_server.requests


def test_a_second_agent_on_the_same_state_dir_is_refused(agent, controller, wait_until):
    agent.start()
    wait_until(lambda: controller.hellos)
    second = subprocess.run(
        [sys.executable, "-m", "edgeloop_agent.cli", "run", "--config", agent.config_path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 3
    assert str(agent.process.pid) in second.stderr
    assert "stop it" in second.stderr
