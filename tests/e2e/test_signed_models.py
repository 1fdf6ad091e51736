"""A publisher signs, the real controller serves, and a real device verifies for itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.toml_text import toml_text
from edgeloop_simulators.bench.loop import Controller, controller
from edgeloop_simulators.fleet import program

pytest.importorskip("edgeloop_controller.trust")
pytestmark = pytest.mark.e2e

KEY = ("--key", "edgeloop-trust/targets.pem", "--yes")
TERMS = {"soak_s": 0, "probation": {"min_s": 0.5, "min_examples": 5}}


@dataclass
class Publisher:
    directory: Path
    served: Controller

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program("edgeloop"), "--url", self.served.url, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
        )

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def publish(self, package: Any) -> None:
        version = package.manifest.version
        model, draft = self.directory / f"{version}.onnx", self.directory / "model.toml"
        model.write_bytes(package.model)
        names = [feature.name for feature in package.manifest.features]
        draft.write_text(toml_text({"features": names, "labels": list(package.manifest.labels)}))
        self.served.client.publish(model, "tiny", version, manifest=draft)

    def sign(self, version: str, *terms: str) -> None:
        self.must("trust", "sign", f"tiny@{version}", "--artifact", f"{version}.onnx", *terms, *KEY)

    def roll_out(self, version: str) -> str:
        document = {"name": "tiny", "version": version, "selector": "all", "waves": ["1"]}
        return str(self.served.client.post("/rollouts", {**document, "terms": TERMS})["id"])

    def slot(self) -> Any:
        return self.served.client.get("/devices/d1")["slots"][0]


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    """Trust is initialised, and a device with the publisher's root runs nothing yet."""
    with controller(tmp_path / "controller") as served:
        publisher = Publisher(tmp_path, served)
        publisher.must("trust", "init", "--no-passphrase", "--yes")
        stream = tmp_path / "stream.npy"
        np.save(stream, np.random.default_rng(7).normal(size=(200, 3)))
        config = tmp_path / "agent.toml"
        document = {
            "device_id": "d1",
            "state_dir": str(tmp_path / "state"),
            "controller_url": served.url,
            "labels": {"site": "lab"},
            "trust": {"root": str(tmp_path / "edgeloop-trust" / "root.json")},
            "broker": {"port": served.broker_port},
            "slots": {"main": {"source": {"kind": "replay", "path": str(stream), "rate_hz": 50}}},
        }
        config.write_text(toml_text(document))
        with (tmp_path / "agent.log").open("wb") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "edgeloop_agent.cli", "run", "--config", str(config)],
                stderr=log,
            )
        try:
            yield publisher
        finally:
            agent.terminate()
            assert agent.wait(20) == 0
            print((tmp_path / "agent.log").read_text()[-4000:])


def test_a_version_is_signed_served_verified_and_installed(
    publisher: Publisher, make_package: Any, wait_until: Any
) -> None:
    weights = [[2.0, -2.0], [0.5, 0.5], [-1.0, 1.0]]
    one, two = make_package("1"), make_package("2", weights=weights)
    publisher.publish(one)
    publisher.publish(two)
    publisher.sign("1", "--selector", "site=lab")
    publisher.roll_out("1")
    wait_until(lambda: (publisher.slot()["champion"] or {}).get("version") == "1")
    refused = publisher.run("rollout", "start", "tiny@2", "--to", "all")
    assert "tiny@2 is not signed" in " ".join((refused.stdout + refused.stderr).split())
    publisher.sign("2", "--selector", "site=elsewhere")
    publisher.roll_out("2")
    wait_until(lambda: publisher.slot()["refused"])
    assert publisher.slot()["refused"]["cause"] == "not signed for this device"
    assert publisher.slot()["champion"]["version"] == "1"
    journal = json.loads((publisher.directory / "state" / "journal.json").read_bytes())
    assert journal["slots"][0]["releases"] == [{"model": "tiny", "version": "1", "release": 1}]
