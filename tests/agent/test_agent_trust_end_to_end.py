"""A real agent installs what is signed and says what it waits for; its supervisor stays small."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from test_agent_imports import SUPERVISOR_MAY, WITNESS, modules_said, packages
from trust_repository import Repository

from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

pytestmark = pytest.mark.e2e


@pytest.fixture
def signed(agent, artifact_server, monkeypatch):
    """The agent's publisher, whose metadata the controller's HTTP serves."""
    repository = Repository(expires=datetime.now(UTC) + timedelta(days=30))
    root = agent.directory / "root.json"
    root.write_bytes(repository.files["1.root.json"])
    with agent.config_path.open("a") as config:
        config.write(f'[trust]\nroot = "{root}"\n')
    witness = agent.directory / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(WITNESS)
    monkeypatch.setenv("PYTHONPATH", str(witness), prepend=":")

    def release(package, number):
        repository.release(package, number)
        artifact_server.artifacts.update(repository.files)

    return release


def test_a_device_installs_what_is_signed_and_nothing_else(
    agent, controller, artifact_server, make_package, wait_until, signed
):
    first = make_package("1")
    second = make_package("2", weights=[[2.0, -2.0], [0.5, 0.5], [-1.0, 1.0]])
    for package in (first, second):
        artifact_server.publish(package)
    signed(first, 1)
    agent.start()
    controller.offer(first)
    wait_until(lambda: controller.runs(first))
    controller.offer(second)
    wait_until(lambda: "tiny@2 is not in the verified metadata" in controller.slot.waiting)
    status = [sys.executable, "-m", "edgeloop_agent.cli", "status", "--config", agent.config_path]

    def said():
        return subprocess.run(status, capture_output=True, text=True, check=True).stdout

    wait_until(lambda: "waiting: not signed: tiny@2" in said())  # status.json is a second old
    assert controller.slot.champion == first.offer.ref
    timestamp = artifact_server.artifacts.pop("timestamp.json")
    wait_until(lambda: "timestamp.json answered 404" in controller.slot.waiting)
    assert controller.slot.runner_alive
    assert second.offer.artifact_digest not in {digest for digest, _ in artifact_server.requests}
    artifact_server.artifacts["timestamp.json"] = timestamp
    signed(second, 2)
    wait_until(lambda: controller.runs(second))
    assert agent.stop() == 0
    modules = modules_said(agent.log_path)
    assert packages(modules) <= SUPERVISOR_MAY
    assert not {name for name in modules if name.startswith("edgeloop_agent.trust")}
    assert (agent.state_dir / "trust" / "timestamp.json").exists()


@pytest.mark.parametrize(
    ("url", "table", "problem"),
    [
        ("http://10.0.0.1:8080", "", "[trust] is missing, and the controller is not on this"),
        ("https://controller", "", "[trust] unsigned = true"),
        ("http://localhost:8080", "", ""),
        ("http://[::1]:8080", "", ""),
        ("http://127.0.0.1.evil.example", "", "[trust] is missing"),
        ("https://10.0.0.1:8080", "[trust]\nunsigned = true\n", ""),
        ("https://10.0.0.1:8080", '[trust]\nroot = "root.json"\n', ""),
        ("http://10.0.0.1", '[trust]\nroot = "r"\nunsigned = true\n', "either root"),
        ("http://127.0.0.1", "[trust]\n", "either root"),
    ],
)
def test_unsigned_models_are_for_loopback_or_said(tmp_path, url, table, problem):
    from edgeloop_agent.config import AgentConfig

    path = tmp_path / "agent.toml"
    path.write_text(
        f'device_id = "d"\nstate_dir = "{tmp_path}"\ncontroller_url = "{url}"\nplain = true\n'
        f"{table}"
        '[slots.main.source]\nkind = "replay"\npath = "x.csv"\n'
    )
    if not problem:
        config = load_config(AgentConfig, path)
        assert config.core().signed_only == ("root" in table)
        return
    with pytest.raises(ConfigError) as failed:
        load_config(AgentConfig, path)
    assert problem in str(failed.value)
