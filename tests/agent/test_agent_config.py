"""agent.toml, the command line, and what the supervisor may import."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgeloop_agent.cli import main
from edgeloop_agent.config import AgentConfig
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

MINIMAL = """
device_id = "dev1"
state_dir = "state"
controller_url = "http://127.0.0.1:8080"
[slots.main.source]
kind = "replay"
path = "stream.csv"
"""


def load(tmp_path, text, environment=None):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_config(AgentConfig, path, environment or {})


def test_defaults_and_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, MINIMAL, {"EDGELOOP_BROKER__PORT": "1999"})
    assert config.state_dir == tmp_path / "state"
    assert config.slots["main"].source.path == tmp_path / "stream.csv"
    assert config.broker.port == 1999
    assert config.slots["main"].sink.kind == "none"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('device_id = "dev1"', 'device_id = "Dev 1"'), "device_id.*cannot stand in a topic"),
        (('device_id = "dev1"', ""), "device_id: missing; add it"),
        (('"http://127.0.0.1:8080"', '"ftp://x"'), "controller_url"),
        (('kind = "replay"', 'kind = "camera"'), "slots.main.source.*'replay', 'socket'"),
        (("[slots", 'colour = "red"\n[slots'), "colour: unknown key; known here: .*device_id"),
        (
            ('path = "stream.csv"', 'path = "stream.csv"\n[slots.main.sink]\nkind = "socket"'),
            "use a socket source",
        ),
        (("[slots.main.source]", "[slots.main.source"), "is not TOML"),
    ],
)
def test_errors_name_the_key_and_the_mend(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, MINIMAL.replace(*change))


def test_status_without_an_agent(tmp_path, capsys):
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL.replace('"state"', f'"{tmp_path}/state"'))
    assert main(["status", "--config", str(path)]) == 4
    assert "edgeloop-agent run" in capsys.readouterr().err


def test_usage_errors_have_one_code(tmp_path, capsys):
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["run"])


def test_status_in_words(tmp_path, capsys):
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL.replace('"state"', f'"{tmp_path}"'))
    version = {"name": "tiny", "version": "1", "manifest_digest": "1" * 64}
    slot = {
        "slot": "main",
        "state": "rolled_back",
        "champion": version,
        "candidate": None,
        "waiting": "",
        "runner_alive": True,
        "refused": {"version": version | {"version": "2"}, "cause": "nan or inf"},
    }
    document = {
        "device_id": "dev1",
        "pid": 1,
        "revision": 3,
        "broker_connected": False,
        "slots": [slot],
        "outbox": {"held": 4, "held_bytes": 500, "dropped": 0},
        "confinement": {
            "main": {"done": ["no network: network namespace"], "lacking": ["nice 5: not so: no"]}
        },
    }
    (tmp_path / "status.json").write_text(json.dumps(document))
    assert main(["status", "--config", str(path)]) == 4, "the lock says that nobody runs"
    shown = capsys.readouterr().out
    assert "runs tiny@1" in shown
    assert "refused tiny@2: nan or inf" in shown
    assert "not running" in shown
    assert "4 records" in shown
    assert "full:" not in shown
    assert "runner: no network: network namespace" in shown
    assert "runner not confined: nice 5: not so: no" in shown


def test_status_says_what_a_full_outbox_gave_up(tmp_path, capsys):
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL.replace('"state"', f'"{tmp_path}"'))
    outbox = {
        "held": 4,
        "held_bytes": 500,
        "dropped": 90,
        "merged": 8000,
        "sketches_shed": 70,
        "samples_dropped": 50,
        "events_dropped": 0,
    }
    known = {"device_id": "dev1", "revision": 3, "broker_connected": False, "slots": []}
    (tmp_path / "status.json").write_text(json.dumps(known | {"outbox": outbox}))
    main(["status", "--config", str(path)])
    assert (
        "full: 8000 windows merged into others, 70 sketches shed, 50 samples dropped, "
        "40 windows dropped"
    ) in capsys.readouterr().out


def test_the_supervisor_imports_no_numpy_no_runtime_and_no_http():
    code = (
        "import sys, edgeloop_agent.cli, edgeloop_agent.shell.compose;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"paho", "pydantic", "sqlite3"} <= imported
    heavy = {"numpy", "onnxruntime", "datasketches", "httpx", "typer", "rich", "asyncio"}
    assert not imported & (heavy | {"zstandard", "hdiffpatch"})


def test_the_applier_of_patches_imports_no_pydantic_and_no_broker():
    code = (
        "import sys, edgeloop_agent.patching.main, edgeloop_protocol.tensor_patch;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"numpy", "zstandard"} <= imported
    assert not imported & {"pydantic", "paho", "hdiffpatch", "asyncio", "sqlite3"}


@pytest.mark.parametrize(
    ("changes", "is_safe"),
    [
        ({}, True),
        ({"controller_url": "http://localhost:8080"}, True),
        ({"controller_url": "http://[::1]:8080"}, True),
        ({"controller_url": "http://controller.lan:8080"}, False),
        ({"controller_url": "http://127.0.0.1.evil.example"}, False),
        ({"controller_url": "http://127.0.0.1@evil.example"}, False),
        ({"controller_url": "https://controller.lan"}, True),
        ({"broker": {"host": "broker.lan"}}, False),
        ({"broker": {"host": "broker.lan", "tls": {}}}, True),
        ({"broker": {"host": "broker.lan"}, "identity": {}}, True),
        ({"broker": {"host": "broker.lan"}, "plain": True}, True),
    ],
)
def test_beyond_this_machine_with_tls_only(changes, is_safe):
    document = {
        "device_id": "dev1",
        "state_dir": "/tmp/state",
        "controller_url": "http://127.0.0.1:8080",
        "trust": {"unsigned": True},
        "slots": {"main": {"source": {"kind": "socket", "path": "/run/a.sock"}}},
    }
    if is_safe:
        AgentConfig.model_validate(document | changes)
    else:
        with pytest.raises(ValidationError, match="without TLS"):
            AgentConfig.model_validate(document | changes)


def test_an_identity_is_what_tls_shows_unless_another_is_configured():
    def made(**changes):
        return AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": "/state",
                "controller_url": "https://controller.lan",
                "trust": {"unsigned": True},
                "slots": {"main": {"source": {"kind": "socket", "path": "/run/a.sock"}}},
                "broker": {"host": "broker.lan", "tls": {}},
            }
            | changes
        )

    assert made().http_tls is None
    own = made(identity={}).http_tls
    assert own is not None
    assert (str(own.ca_path), str(own.certificate_path)) == (
        "/state/identity/ca.pem",
        "/state/identity/device.pem",
    )
    shown = made(identity={}).broker_tls
    assert shown is not None
    assert (shown.ca_path, str(shown.certificate_path)) == (None, "/state/identity/device.pem")
    other = made(identity={}, controller_tls={"certificate_path": "/x.pem"}).http_tls
    assert other is not None
    assert str(other.certificate_path) == "/x.pem"
