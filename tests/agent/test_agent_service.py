"""A real agent looked after from outside: systemd's protocol, signals, requests, its weight."""

import json
import os
import re
import secrets
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from edgeloop_protocol.messages import Request, Response, Said, decode, encode
from edgeloop_protocol.topics import Down, Up, parse_up_topic

pytestmark = pytest.mark.e2e

SUPERVISOR_RSS_MB_MAX = 45.0


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path, monkeypatch, watchdog_s):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0)
        self.said = []
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(watchdog_s * 1e6)))

    def heard(self):
        while True:
            try:
                self.said.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self.said

    def pets(self):
        return self.heard().count("WATCHDOG=1")


@pytest.fixture
def manager(tmp_path, monkeypatch):
    made = Manager(tmp_path / "notify", monkeypatch, watchdog_s=2.0)
    yield made
    made.socket.close()


@pytest.fixture
def serving(agent, controller, artifact_server, make_package, wait_until):
    """An agent whose slot runs version 1."""
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    return agent


def test_ready_status_reload_stop(manager, serving, controller, wait_until):
    assert manager.heard()[0] == "READY=1"
    wait_until(lambda: any("main: committed tiny@1" in it for it in manager.heard()))
    path = serving.config_path
    path.write_text(path.read_text().replace('site = "lab"', 'site = "roof"'))
    serving.process.send_signal(1)  # SIGHUP
    wait_until(lambda: controller.hellos[-1].labels == {"site": "roof"})
    wait_until(lambda: manager.heard().count("READY=1") == 2)
    reloading = next(n for n, it in enumerate(manager.said) if it.startswith("RELOADING=1"))
    assert "READY=1" in manager.said[reloading:]
    assert serving.stop() == 0
    assert "STOPPING=1" in manager.heard()


def test_a_wedged_loop_is_not_petted_while_its_threads_go_on(manager, serving, wait_until):
    before = manager.pets()
    wait_until(lambda: manager.pets() > before + 2, what="it is petted while all is well")
    wedge = serving.state_dir / "status.json.tmp"  # nobody reads: whoever opens it to write, waits
    wedge.unlink(missing_ok=True)
    os.mkfifo(wedge)
    wait_until(lambda: _opens(serving.process.pid), what="the supervisor's loop hangs")
    manager.heard()
    manager.said.clear()
    answers = serving.answers_path.stat().st_size
    wait_until(lambda: serving.answers_path.stat().st_size > answers + 4000)
    assert manager.pets() == 0
    serving.kill()


def _opens(pid):
    """Does a thread of it wait in opening a FIFO?"""
    return "fifo" in Path(f"/proc/{pid}/wchan").read_text() or _stack(pid)


def _stack(pid):
    try:
        return "fifo_open" in Path(f"/proc/{pid}/stack").read_text()
    except OSError:
        return False


def test_a_bad_file_changes_nothing_and_is_said(serving, controller, wait_until):
    whole = serving.config_path.read_text()
    serving.config_path.write_text(whole + "colour = 1\n")
    hellos, runners = len(controller.hellos), serving.runner_pids()
    serving.process.send_signal(1)
    wait_until(lambda: any(e.name == "config_refused" for e in controller.bodies("event")))
    refused = next(e for e in controller.bodies("event") if e.name == "config_refused")
    assert "unknown key" in refused.detail
    assert (len(controller.hellos), serving.runner_pids()) == (hellos, runners)
    serving.config_path.write_text(whole.replace("rate_hz = 40", "rate_hz = 41"))
    serving.process.send_signal(1)
    wait_until(lambda: set(serving.runner_pids()).isdisjoint(runners) and serving.runner_pids())
    wait_until(lambda: any(e.name == "config_reloaded" for e in controller.bodies("event")))
    assert controller.slot.runner_restarts == 0, "nothing was lost"


def test_sigterm_flushes(agent, controller, artifact_server, make_package, wait_until):
    """What the runner saw until the end is in the outbox, whole, though no window was over yet."""
    path = agent.config_path
    path.write_text(path.read_text().replace("window_s = 0.5", "window_s = 600"))
    package = make_package()
    artifact_server.publish(package)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(package)
    wait_until(lambda: controller.runs(package))
    assert not controller.bodies("window")
    controller.acknowledging = False
    answered = len(agent.answers_path.read_text().splitlines())
    assert agent.stop() == 0
    assert agent.status()["running"] is False
    windows = [it for it in held(agent.state_dir) if it["kind"] == "window"]
    assert sum(window["count"] for window in windows) >= answered > 0
    assert json.loads((agent.state_dir / "journal.json").read_bytes())
    assert not agent.runner_pids()


def held(state_dir):
    """What the outbox holds, by a reader of its own."""
    with sqlite3.connect(state_dir / "outbox.sqlite") as outbox:
        assert outbox.execute("pragma integrity_check").fetchone() == ("ok",)
        return [json.loads(row[0]) for row in outbox.execute("select document from records")]


class Asker:
    """Asks a device by way of the scripted controller, and keeps what it answers."""

    def __init__(self, controller):
        self.controller = controller
        self.responses = []
        hear = controller.message

        def message(topic, payload):
            if parse_up_topic(topic).kind is Up.RESPONSE:
                self.responses.append(decode(Response, payload))
            else:
                hear(topic, payload)

        controller.message = message

    def ask(self, asks, wait_until, **more):
        request_id = secrets.token_hex(8)
        hello = self.controller.hellos[-1]
        said = more.pop("said", Said(epoch=hello.epoch, sequence=hello.sequence))
        request = Request(id=request_id, asks=asks, said=said, **more)
        self.controller.raw(Down.REQUEST, encode(request))
        wait_until(lambda: any(it.id == request_id for it in self.responses), what=asks)
        return next(it for it in self.responses if it.id == request_id)


def test_a_device_is_asked_from_afar(serving, controller, wait_until):
    """EL-DIAG-1, EL-DIAG-2."""
    asker = Asker(controller)
    assert "epoch" in asker.ask("logs", wait_until).text
    assert asker.ask("logs", wait_until, lines_max=1).text.count("\n") == 0
    wait_until(lambda: serving.status()["slots"][0]["champion"], what="it is a second old at most")
    status = json.loads(asker.ask("status", wait_until).text)
    assert status["slots"][0]["champion"]["version"] == "1"
    runners = serving.runner_pids()
    refused = asker.ask(
        "restart_runner", wait_until, slot="main", said=Said(epoch="0" * 16, sequence=1)
    )
    assert not refused.done
    assert serving.runner_pids() == runners
    assert asker.ask("restart_runner", wait_until, slot="main").done
    wait_until(lambda: serving.runner_pids() and serving.runner_pids() != runners)
    wait_until(lambda: set(serving.runner_pids()).isdisjoint(runners))
    wait_until(lambda: controller.slot.runner_alive)
    assert controller.slot.runner_restarts == 0, "nothing was lost"
    assert not asker.ask("restart_runner", wait_until, slot="other").done
    assert "does not understand" in asker.ask("dance", wait_until).text


def test_the_supervisor_stays_light_after_a_download(serving):
    pid = serving.process.pid
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert re.search(r"\S*libpython|\S*python3", mapped)
    for heavy in ("numpy", "onnxruntime", "datasketches"):
        assert heavy not in mapped
    status = Path(f"/proc/{pid}/status").read_text()
    rss_mb = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    assert rss_mb <= SUPERVISOR_RSS_MB_MAX


def test_the_controllers_time_is_kept_as_a_floor(serving):
    """For the next start, should it wake in 1970."""
    floor = json.loads((serving.state_dir / "time-floor.json").read_bytes())["floor"]
    assert abs(floor - time.time()) < 120
