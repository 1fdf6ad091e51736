"""A person asks a real agent through the real controller, by the command line."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop_simulators.bench.loop import controller
from edgeloop_simulators.fleet import program

pytestmark = pytest.mark.e2e


@pytest.fixture
def edgeloop(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The command line, beside an agent that runs nothing yet."""
    with controller(tmp_path / "controller") as served:
        config = tmp_path / "agent.toml"
        config.write_text(
            f'device_id = "d1"\nstate_dir = "{tmp_path}/state"\ncontroller_url = "{served.url}"\n'
            f"[broker]\nport = {served.broker_port}\n"
            '[slots.main.source]\nkind = "socket"\npath = "/none"\n'
        )
        agent = subprocess.Popen(
            [sys.executable, "-m", "edgeloop_agent.cli", "run", "--config", str(config)],
            stderr=subprocess.DEVNULL,
        )

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [program("edgeloop"), "--url", served.url, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
            )

        try:
            yield run
        finally:
            agent.terminate()
            assert agent.wait(20) == 0


def test_logs_status_and_a_refusal(edgeloop: Any, wait_until: Any) -> None:
    """EL-DIAG-1."""
    wait_until(lambda: edgeloop("device", "show", "d1").returncode == 0, what="the device's hello")
    logs = edgeloop("device", "diagnose", "d1", "logs")
    assert logs.returncode == 0, logs.stderr
    assert "connected to the broker" in logs.stdout
    status = edgeloop("device", "diagnose", "d1", "status", "--json")
    assert json.loads(json.loads(status.stdout)["text"])["device_id"] == "d1"
    refused = edgeloop("device", "diagnose", "d1", "restart-runner", "--slot", "main")
    assert refused.returncode == 4
    assert "nothing runs here yet" in refused.stderr
