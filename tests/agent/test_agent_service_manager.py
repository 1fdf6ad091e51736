"""What systemd is told, and the unit that makes it listen."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from edgeloop_agent.cli import main
from edgeloop_agent.shell.service_manager import ServiceManager, from_environment
from edgeloop_simulators.twins.clock import SimulatedClock


class Listener:
    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0)

    def heard(self):
        said = []
        while True:
            try:
                said.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return said


@pytest.fixture
def listener(tmp_path):
    made = Listener(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_states_are_told_and_a_status_only_when_it_is_new(listener, tmp_path):
    manager = ServiceManager(str(tmp_path / "notify"), clock=SimulatedClock(monotonic_s=2.5))
    manager.ready()
    manager.status("connected")
    manager.status("connected")
    manager.reloading()
    manager.stopping()
    manager.pet()  # no watchdog was asked for
    assert listener.heard() == [
        "READY=1",
        "STATUS=connected",
        "RELOADING=1\nMONOTONIC_USEC=2500000",
        "STOPPING=1",
    ]


def test_the_watchdog_is_petted_four_times_a_timeout_at_most(listener, tmp_path):
    clock = SimulatedClock()
    manager = ServiceManager(str(tmp_path / "notify"), watchdog_s=4.0, clock=clock)
    for _ in range(9):
        manager.pet()
        clock.advance(0.5)
    assert listener.heard() == ["WATCHDOG=1"] * 5


def test_an_abstract_address_and_nobody_there(tmp_path):
    listener = Listener("\0edgeloop-test-notify")
    ServiceManager("@edgeloop-test-notify").ready()
    assert listener.heard() == ["READY=1"]
    listener.socket.close()
    ServiceManager("@edgeloop-test-notify").ready()
    ServiceManager(str(tmp_path / "none")).ready()
    assert not ServiceManager().listens


def test_runners_cannot_speak_for_the_agent(tmp_path):
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": "1",
        "PATH": "/bin",
    }
    assert from_environment(environment).listens
    assert environment == {"PATH": "/bin"}


def test_the_unit_names_this_installation(tmp_path, capsys):
    directory = tmp_path / "with space"
    directory.mkdir()
    toml = directory / "agent.toml"
    toml.write_text(
        f'device_id = "dev1"\nstate_dir = "{directory}/state"\ncontroller_url = "http://127.0.0.1"\n'
        '[slots.main.source]\nkind = "socket"\npath = "/none"\n'
        f'[slots.main.sink]\nkind = "jsonl"\npath = "{tmp_path}/answers.jsonl"\n'
    )
    assert main(["systemd-unit", "--config", str(toml)]) == 0
    unit = capsys.readouterr().out
    assert "Type=notify\n" in unit
    assert "WatchdogSec=30\n" in unit
    assert f'--config "{toml}"\n' in unit
    assert f'ReadWritePaths="{directory}/state" {tmp_path}\n' in unit
    verify(unit, tmp_path)


def verify(unit, directory: Path):
    if shutil.which("systemd-analyze") is None:
        return
    path = directory / "edgeloop-agent.service"
    path.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "edgeloop-agent.service" in line]
    assert ours == []
