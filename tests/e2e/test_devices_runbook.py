"""docs/devices.md is run as it stands, in one shell; only its ports are others."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
BLOCKS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
TIMEOUT_S = 100.0
SECRETS = ("edgeloop-enrol-", "PRIVATE KEY")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")
def test_every_command_works(tmp_path: Path, free_port: Callable[[], int]) -> None:
    blocks = BLOCKS.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 8
    http_port, broker_port = str(free_port()), str(free_port())
    # As the page is for an operator, who takes the usual port.
    ports = [
        ("8443", http_port),
        ("8883", broker_port),
        ("--address", f"--port {broker_port} --address"),
    ]
    text = "".join(blocks)
    for usual, here in ports:
        text = text.replace(usual, here)
    script = tmp_path / "runbook.sh"
    script.write_text(f"set -eu\n{text}echo THE END\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    with (tmp_path / "out").open("wb") as out:
        shell = subprocess.Popen(
            ["bash", str(script)],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        seen = set()
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while shell.poll() is None and time.monotonic() < deadline:
                seen |= _arguments_of(shell.pid)
                time.sleep(0.02)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()
            time.sleep(0.2)
            with_left = _arguments_of(shell.pid)
            if with_left:
                os.killpg(shell.pid, signal.SIGKILL)
    said = (tmp_path / "out").read_text()
    assert "THE END" in said, said[-3000:]
    # What ran showed no secret to `ps`, and what was written down holds none that others can read.
    assert any("enroll" in one for one in seen)
    assert not [one for one in seen for secret in SECRETS if secret in one]
    tokens = [line.partition(",")[2] for line in (tmp_path / "tokens.csv").read_text().split()]
    for file in tmp_path.rglob("*"):
        if not file.is_file() or file.stat().st_mode & 0o077 == 0:
            continue
        content = file.read_text(errors="replace")
        assert not any(secret in content for secret in (*SECRETS, *tokens)), file
    assert "the broker refuses it too, and has ended its connection" in said
    assert not (tmp_path / "press-2" / "identity").exists()


def _arguments_of(session: int) -> set[str]:
    """Of each process of a session, as `ps` shows them."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(directory.name)) == session:
                found.add((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, ValueError):
            continue
    return found
