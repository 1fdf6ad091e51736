"""Fixtures that several test packages share: free ports, real brokers, waiting on a condition."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without mosquitto the tests that need it are skipped; in CI that is an error."""
    if MOSQUITTO:
        return
    needing = [item for item in items if "mosquitto" in getattr(item, "fixturenames", ())]
    if needing and os.environ.get("CI"):
        raise pytest.UsageError("mosquitto is not installed, and CI must run its tests")
    for item in needing:
        item.add_marker(
            pytest.mark.skip(reason="mosquitto is not installed: apt install mosquitto")
        )


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    """Return once `condition()` is true; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {timeout_s} s: {what or condition}")
        time.sleep(0.02)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Mosquitto:
    """A real mosquitto on loopback; `stop` and `start` keep its port."""

    directory: Path
    port: int = field(default_factory=free_port)
    settings: str = "allow_anonymous true\n"
    limits: str = "max_queued_messages 0\n"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None:
            return
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\n"
            "persistence false\nlog_type error\n" + self.limits + self.settings
        )
        assert MOSQUITTO
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)])
        wait_until(lambda: _listens(self.port), what="mosquitto listens")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()
