"""The doctor: each finding that is not fine says how to mend it, and the exit code is the worst."""

import http.server
import json
import shutil
import threading

import pytest

from edgeloop_agent.cli import main
from edgeloop_agent.shell import doctor, doctor_machine
from edgeloop_agent.shell.finding import Verdict
from edgeloop_agent.shell.time_floor import EARLIEST_S, FILE_NAME, LATEST_S
from edgeloop_protocol.clock import SystemClock
from edgeloop_simulators.twins.clock import SimulatedClock

NOW = EARLIEST_S + 86_400


class Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/v1/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def health():
    handler = type("H", (Health,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def write(tmp_path, free_port):
    (tmp_path / "state").mkdir()
    (tmp_path / "stream.csv").write_text("a\n1\n")

    def write(url="http://127.0.0.1:9", port=None, more=""):
        path = tmp_path / "agent.toml"
        path.write_text(
            f'device_id = "dev1"\nstate_dir = "{tmp_path}/state"\ncontroller_url = "{url}"\n'
            f"[broker]\nport = {port or free_port()}\n{more}"
            f'[slots.main.source]\nkind = "replay"\npath = "{tmp_path}/stream.csv"\n'
        )
        path.chmod(0o644)
        return path

    return write


def of(findings, name):
    found = [finding for finding in findings if finding.name == name]
    assert found, f"nothing is said of {name}"
    return found[-1]


def examine(path, clock=None):
    findings = doctor.examine(path, clock or SystemClock())
    for finding in findings:
        assert finding.words
        assert bool(finding.mend) == (finding.verdict is not Verdict.FINE), finding
    return findings


def test_all_is_fine(write, health, mosquitto, capsys):
    path = write(health.url, mosquitto.port)
    code = main(["doctor", "--config", str(path), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [it for it in document if it["verdict"] == "failed"] == []
    assert {it["name"] for it in document} == {
        "config", "permissions", "state_dir", "disk", "clock", "runtimes", "slot main", "broker",
        "controller", "trust",
    }  # fmt: skip
    assert code == (5 if any(it["verdict"] == "warning" for it in document) else 0)
    assert list((path.parent / "state").glob("doctor-*")) == [], "it leaves nothing behind"


def test_nothing_answers(write, capsys):
    path = write()
    assert main(["doctor", "--config", str(path)]) == 6
    said = capsys.readouterr().out
    assert "no broker answers at 127.0.0.1" in said
    assert "mend: start the broker" in said
    assert "mend: start the controller, or correct controller_url" in said


def test_a_configuration_that_cannot_be_used_is_the_only_finding(write, capsys):
    path = write(more="colour = 1\n")
    assert main(["doctor", "--config", str(path)]) == 6
    assert "broker.colour: unknown key" in capsys.readouterr().out


def test_a_password_that_others_can_read(write):
    path = write(more='username = "u"\npassword = "p"\n')
    assert of(examine(path), "permissions").verdict is Verdict.WARNING
    path.chmod(0o600)
    assert of(examine(path), "permissions").verdict is Verdict.FINE


def test_a_state_directory_that_is_a_file_or_open_to_all(write, tmp_path):
    path = write()
    (tmp_path / "state").chmod(0o777)
    assert of(examine(path), "state_dir").verdict is Verdict.WARNING
    shutil.rmtree(tmp_path / "state")
    assert "the agent makes it" in of(examine(path), "state_dir").words
    (tmp_path / "state").write_text("")
    assert of(examine(path), "state_dir").verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("wall_s", "verdict", "words"),
    [
        (NOW, Verdict.FINE, "2026-01-02"),
        (0.0, Verdict.FAILED, "before this agent was made"),
        (LATEST_S + 1, Verdict.FAILED, "that cannot be"),
        (NOW - 3600, Verdict.FAILED, "3600 s before the last time that the controller said"),
    ],
)
def test_the_clock(write, tmp_path, wall_s, verdict, words):
    (tmp_path / "state" / FILE_NAME).write_text(json.dumps({"floor": NOW}))
    findings = examine(write(), SimulatedClock(wall_s=wall_s))
    assert of(findings, "clock").verdict is verdict
    assert words in of(findings, "clock").words


def test_a_clock_apart_from_the_controllers(write, health):
    findings = examine(write(health.url), SimulatedClock(wall_s=NOW))
    assert of(findings, "clock").verdict is Verdict.WARNING
    assert "behind the controller's" in of(findings, "clock").words


def test_something_else_answers_for_the_controller(write, health):
    health.status = 404
    assert "answered 404" in of(examine(write(health.url)), "controller").words


def test_a_full_disk(write, monkeypatch):
    usage = doctor_machine.shutil.disk_usage
    monkeypatch.setattr(
        doctor_machine.shutil, "disk_usage", lambda path: usage(path)._replace(free=2**20)
    )
    assert "no model is installed" in of(examine(write()), "disk").words


def test_no_runtime(write, monkeypatch):
    monkeypatch.setattr(
        doctor_machine.DeviceInventory,
        "__call__",
        lambda self: type("None", (), {"runtimes": ()}),
    )
    monkeypatch.setattr(doctor_machine.platform, "machine", lambda: "armv7l")
    finding = of(examine(write()), "runtimes")
    assert finding.verdict is Verdict.FAILED
    assert "no ONNX wheel for armv7" in finding.mend


def test_a_source_that_is_not_there(write, tmp_path):
    path = write()
    (tmp_path / "stream.csv").unlink()
    assert of(examine(path), "slot main").verdict is Verdict.WARNING


def test_a_check_that_fails_by_surprise_is_a_finding(write, monkeypatch):
    def surprise(_config):
        raise ZeroDivisionError

    monkeypatch.setattr(doctor_machine, "disk", surprise)
    findings = examine(write())
    assert of(findings, "disk").verdict is Verdict.FAILED
    assert "ZeroDivisionError" in of(findings, "disk").words
    assert of(findings, "runtimes"), "and the rest is still looked at"


def test_whether_models_are_verified(write, tmp_path):
    path = write(more="[trust]\nunsigned = true\n")
    assert of(examine(path), "trust").verdict is Verdict.WARNING
    path = write(more=f'[trust]\nroot = "{tmp_path}/root.json"\n')
    found = of(examine(path), "trust")
    assert found.verdict is Verdict.FAILED
    assert "new versions wait" in found.words
    assert "root.json cannot be read" in found.words
