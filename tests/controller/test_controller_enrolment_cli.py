"""`edgeloop device enroll` and its neighbours."""

import csv
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from device_keys import DeviceKey

from edgeloop_controller.cli.exit_codes import ExitCode


def ask(url: str, key: DeviceKey, token: str | None = None) -> httpx.Response:
    return httpx.post(f"{url}/v1/enrolments", json={"csr": key.csr, "token": token})


def test_a_token_alone_on_stdout_or_in_a_file(cli: Any, url: str, tmp_path: Path) -> None:
    token = cli.run("device", "enroll", "--site", "lab").stdout.strip()
    assert ask(url, DeviceKey("dev1"), token).status_code == 201
    path = tmp_path / "token"
    said = cli.run("device", "enroll", "--device", "dev2", "--out", str(path)).stdout
    assert path.read_text().strip() not in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ask(url, DeviceKey("dev2"), path.read_text().strip()).status_code == 201
    cli.refused(ExitCode.USAGE, "device", "enroll", "--out", str(path))
    shown = cli.table("device", "tokens")
    assert "any device" in shown
    assert "dev2" in shown
    assert token not in shown


def test_a_batch_of_tokens(cli: Any, url: str, tmp_path: Path) -> None:
    ids, out = tmp_path / "ids", tmp_path / "tokens.csv"
    ids.write_text("# line 3\ndev1\n\ndev2\n")
    cli.run("device", "enroll", "--batch", str(ids), "--out", str(out), "--label", "line=3")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    made = dict(csv.reader(out.read_text().splitlines()))
    assert list(made) == ["dev1", "dev2"]
    assert ask(url, DeviceKey("dev1"), made["dev2"]).status_code == 403
    assert ask(url, DeviceKey("dev1"), made["dev1"]).status_code == 201
    cli.refused(ExitCode.USAGE, "device", "enroll", "--batch", str(ids))


def test_the_queue_and_the_end(cli: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = DeviceKey("dev1"), DeviceKey("dev2")
    assert ask(url, key).status_code == ask(url, other).status_code == 202
    assert "dev2" in cli.table("device", "enrolments")
    assert "dev1 is approved" in cli.run("device", "approve", "1", "--site", "lab").stdout
    assert "dev2 is rejected" in cli.run("device", "reject", "2").stdout
    assert "no device waits" in cli.run("device", "enrolments").stdout
    assert ask(url, key).status_code == 201
    assert ask(url, other).status_code == 403
    assert "makes a new key" in cli.run("device", "rotate", "dev1").stdout
    assert "new key asked for  yes" in cli.table("device", "identity", "dev1")
    monkeypatch.setattr("edgeloop_controller.cli.enrolment.CUT_OFF_WATCHED_S", 0.0)
    said = cli.run("device", "revoke", "dev1", "--reason", "stolen", code=ExitCode.NO_ANSWER)
    assert "the broker has not cut dev1 off yet" in said.stderr
    assert "stolen" in cli.table("device", "identity", "dev1")
    cli.refused(ExitCode.CONFLICT, "device", "rotate", "dev1")
    cli.refused(ExitCode.NOT_FOUND, "device", "revoke", "nobody")
