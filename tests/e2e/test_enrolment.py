"""A device gets its certificate, renews it, makes a new key, and forgets everything: the agent's
own programs against the controller's API."""

import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from controller_bench import make_controller

from edgeloop_agent.cli import main
from edgeloop_agent.exit_codes import ExitCode
from edgeloop_agent.shell.certificate_dates import valid_between
from edgeloop_agent.shell.renewal import Renewal
from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.store.engine import Database
from edgeloop_simulators.twins.clock import SimulatedClock

DAY_S = 86_400.0


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Any]:
    directory = tmp_path / "controller"
    directory.mkdir()
    database = Database(f"sqlite:///{directory / 'db.sqlite'}")
    made = make_controller(database, ControllerConfig(data_dir=directory))
    made.clock.jump_wall(time.time())
    yield made
    database.close()


@pytest.fixture
def url(controller: Any, free_port: Callable[[], int], wait_until: Any) -> Iterator[str]:
    port = free_port()
    app = create_app(controller.parts.services)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def agent_toml(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'device_id = "dev1"\nstate_dir = "{tmp_path}/state"\ncontroller_url = "{url}"\n'
        "[identity]\n[slots.main.source]\n"
        f'kind = "socket"\npath = "{tmp_path}/sensor.sock"\n'
    )
    return path


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity"


def token_file(controller: Any, tmp_path: Path, **asked: Any) -> Path:
    enrolment = controller.parts.services.enrolment
    made = enrolment.make_token(asked.get("device_id"), {"site": "lab"}, 3600.0)
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(made.secret)
    return path


def program(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgeloop_agent.enrolment.main", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.PIPE
    )


def enroll(agent_toml: Path, *more: str | Path) -> "subprocess.CompletedProcess[str]":
    return program("enroll", "--config", agent_toml, *more)


def renew(agent_toml: Path) -> str:
    """stdin is held open, as a supervisor does."""
    child = subprocess.Popen(
        [sys.executable, "-m", "edgeloop_agent.enrolment.main", "renew", "--config", agent_toml],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.wait(60)
    said, wrong = child.communicate()
    return said.strip() or wrong.strip()


def test_a_life(
    controller: Any, agent_toml: Path, identity: Path, tmp_path: Path, capfd: Any
) -> None:
    token = token_file(controller, tmp_path)
    assert main(["enroll", "--config", str(agent_toml), "--token-file", str(token)]) == 0
    assert "device dev1 is enrolled" in capfd.readouterr().out
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in identity.iterdir()}
    assert names == {"device.pem": 0o600, "ca.pem": 0o600}
    first = (identity / "device.pem").read_text()
    again = enroll(agent_toml, "--token-file", token)
    assert (again.returncode, "is enrolled" in again.stderr) == (ExitCode.FAILED, True)

    assert renew(agent_toml) == "renewed"
    second = (identity / "device.pem").read_text()
    assert second.split("-----BEGIN CERT")[0] == first.split("-----BEGIN CERT")[0]
    assert second != first

    enrolment = controller.parts.services.enrolment
    enrolment.rotate("dev1")
    assert renew(agent_toml) == "renewed with a new key"
    third = (identity / "device.pem").read_text()
    assert third.split("-----BEGIN CERT")[0] != second.split("-----BEGIN CERT")[0]
    assert {path.name for path in identity.iterdir()} == {"device.pem", "ca.pem"}
    assert renew(agent_toml) == "renewed"

    enrolment.revoke("dev1", "stolen")
    assert "the certificate is revoked" in renew(agent_toml)

    assert main(["reset", "--config", str(agent_toml), "--yes"]) == 0
    assert not identity.exists()
    assert "device revoke" in capfd.readouterr().out


def test_a_rotation_that_is_cut_at_every_step_ends_well(
    controller: Any, agent_toml: Path, identity: Path, tmp_path: Path
) -> None:
    """A power cut: the answer is lost; the certificate is kept, and the controller not told."""
    assert enroll(agent_toml, "--token-file", token_file(controller, tmp_path)).returncode == 0
    enrolment = controller.parts.services.enrolment
    enrolment.rotate("dev1")
    before = (identity / "device.pem").read_bytes()
    confirm, enrolment.confirm = enrolment.confirm, _fail
    assert "it can be tried again" in renew(agent_toml)
    assert (identity / "unconfirmed").exists()
    held = (identity / "device.pem").read_bytes()
    # As if the certificate's file had not been renamed yet.
    (identity / "device.pem").write_bytes(before)
    (identity / "unconfirmed").unlink()
    (identity / "next.key").write_bytes(held[: held.index(b"-----BEGIN CERT")])
    assert "it can be tried again" in renew(agent_toml)
    enrolment.confirm = confirm
    assert renew(agent_toml) == "renewed"
    assert {path.name for path in identity.iterdir()} == {"device.pem", "ca.pem"}


def _fail(*_: Any) -> None:
    raise RuntimeError("as a controller that is killed")


def test_a_stranger_waits_for_a_person(controller: Any, agent_toml: Path, identity: Path) -> None:
    asked = enroll(agent_toml)
    assert asked.returncode == ExitCode.WAITS_FOR_APPROVAL
    enrolment = controller.parts.services.enrolment
    enrolment.decide(1, approved=True, labels={})
    with controller.parts.services.database.reading() as session:
        from edgeloop_controller.store import identities

        (row,) = identities.requests(session, None)
    assert row.key in asked.stdout
    assert enroll(agent_toml).returncode == ExitCode.OK
    assert (identity / "device.pem").exists()


def test_a_token_is_no_argument_and_goes_nowhere_in_the_clear(
    controller: Any, agent_toml: Path, tmp_path: Path
) -> None:
    token = token_file(controller, tmp_path)
    refused = enroll(agent_toml, "--token-file", token, "--controller", "http://controller.lan:80")
    assert "whoever listens would get the token" in refused.stderr
    token.chmod(0o644)
    assert "chmod 600" in enroll(agent_toml, "--token-file", token).stderr
    far = enroll(agent_toml, "--controller", "https://controller.lan")
    assert "--ca-fingerprint" in far.stderr
    assert program("enroll", "--config", agent_toml, "--token", "x").returncode == ExitCode.USAGE


def test_the_supervisor_renews_at_two_thirds(
    controller: Any, agent_toml: Path, identity: Path, tmp_path: Path, wait_until: Any
) -> None:
    assert enroll(agent_toml, "--token-file", token_file(controller, tmp_path)).returncode == 0
    certificate = identity / "device.pem"
    begins, ends = valid_between(certificate.read_text())
    clock = SimulatedClock(wall_s=begins + (ends - begins) * 0.66)
    said: list[tuple[str, str]] = []
    renewal = Renewal(agent_toml, certificate, clock, lambda *it: said.append(it), lambda: 0.0)
    first = certificate.read_bytes()
    renewal.turn()
    assert renewal._child is None
    clock.advance((ends - begins) * 0.01)
    controller.clock.advance(1000.0)

    def renewed() -> bool:
        renewal.turn()
        return bool(said)

    wait_until(renewed)
    assert said == [("certificate_renewed", "")]
    assert certificate.read_bytes() != first
    # A clock that stands in 1970, or no certificate: nothing is asked for.
    for path, wall_s in ((certificate, 0.0), (tmp_path / "none", ends)):
        idle = Renewal(
            agent_toml, path, SimulatedClock(wall_s=wall_s), lambda *_: None, lambda: 0.0
        )
        idle.turn()
        assert idle._child is None
    # What fails is said once, in words, and tried again later.
    controller.parts.services.enrolment.revoke("dev1", "stolen")
    assert renewal.ask() == "the certificate is being renewed"
    said.clear()
    wait_until(renewed)
    assert "is revoked" in said[0][1]
    clock.advance(2 * 3600.0)
    renewal._is_asked = True
    renewal.turn()
    assert renewal._child is not None
    renewal.stop()


def test_a_renewal_shows_no_certificate_that_may_have_run_out(
    controller: Any, agent_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that was off for a month comes back: TLS would end with an expired certificate."""
    from edgeloop_agent.enrolment import main as programs

    shown = []

    class Heard(programs.Controller):
        def __init__(self, url: str, tls: Any) -> None:
            shown.append(tls)
            super().__init__(url, tls)

    assert enroll(agent_toml, "--token-file", token_file(controller, tmp_path)).returncode == 0
    monkeypatch.setattr(programs, "Controller", Heard)
    monkeypatch.setattr(programs, "_end_with_the_supervisor", lambda: None)
    monkeypatch.setattr("os.umask", lambda _: 0)  # of this process
    assert programs.main(["renew", "--config", str(agent_toml)]) == ExitCode.OK
    (tls,) = shown
    assert tls.ca_path == tmp_path / "state" / "identity" / "ca.pem"
    assert (tls.certificate_path, tls.key_path) == (None, None)


def test_reset_asks_first_and_takes_only_what_is_the_agents(
    agent_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    state = tmp_path / "state"
    (state / "models" / "x").mkdir(parents=True)
    for name in ("journal.json", "outbox.sqlite", "outbox.sqlite-wal", "runner-main.log", "mine"):
        (state / name).write_text("x")
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert main(["reset", "--config", str(agent_toml)]) == ExitCode.FAILED
    assert (state / "journal.json").exists()
    from edgeloop_agent.shell.lock import StateDirLock

    held = StateDirLock(state)
    monkeypatch.setattr("builtins.input", lambda _: "dev1")
    assert main(["reset", "--config", str(agent_toml)]) == ExitCode.STATE_DIR_IN_USE
    held.release()
    assert main(["reset", "--config", str(agent_toml)]) == ExitCode.OK
    assert [path.name for path in state.iterdir()] == ["mine"]
    assert main(["reset", "--config", str(agent_toml)]) == ExitCode.OK
    assert "nothing is kept" in capsys.readouterr().out
