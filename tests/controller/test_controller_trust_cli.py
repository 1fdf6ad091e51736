"""`edgeloop trust`, against a real API."""

from pathlib import Path
from typing import Any

import pytest

from edgeloop_controller.cli.exit_codes import ExitCode


@pytest.fixture
def publisher(cli: Any, controller: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trust is initialised, by keys in `edgeloop-trust`."""
    monkeypatch.chdir(tmp_path)
    cli.run("trust", "init", "--no-passphrase", "--yes")
    return cli


def test_smoke(publisher: Any, controller: Any, tmp_path: Path, tiny_model: Any) -> None:
    controller.publish("1")
    print(publisher.run("trust", "status").output)
    (tmp_path / "m.onnx").write_bytes(tiny_model())
    print(
        publisher.run(
            "trust",
            "sign",
            "tiny@1",
            "--key",
            "edgeloop-trust/targets.pem",
            "--yes",
            "--artifact",
            "m.onnx",
        ).output
    )
    print(publisher.run("trust", "status").output)
    print(publisher.refused(ExitCode.CONFLICT, "rollout", "start", "tiny@1", "--to", "all"))
