"""What several test packages share: free ports, real brokers, tiny real models, waiting."""

import getpass
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

from edgeloop_protocol.manifest import (
    Artifact,
    Baseline,
    Binned,
    Feature,
    Golden,
    Manifest,
    TensorSpec,
)
from edgeloop_protocol.messages import Offer
from edgeloop_protocol.onnx_telemetry import VARIABLE, opt_out

FEATURES = ("a", "b", "c")
LABELS = ("left", "right")

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")

opt_out()  # of what tests import themselves; `not_opted_out` is for what the programs do

# A busy machine is no fault of a test.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without mosquitto the tests that need it are skipped; in CI that is an error."""
    if MOSQUITTO:
        return
    real = {"mosquitto", "lasting_mosquitto", "tls_mosquitto", "mosquitto_fleet"}
    needing = [item for item in items if real & set(getattr(item, "fixturenames", ()))]
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


class Authority:
    """Certificates for the tests, by the openssl program: of a broker or of a client."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.key, self.certificate = directory / f"{name}.key", directory / f"{name}.pem"
        self._run(
            *("req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-days", "3650"),
            *("-keyout", self.key, "-out", self.certificate),
        )

    def issue(self, name: str, names: str = "IP:127.0.0.1", days: int = 365) -> tuple[Path, Path]:
        """Certificate and key; `days` -1: it expired a day ago (openssl takes no other below 0)."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request, extensions = self.directory / "request.csr", self.directory / "extensions"
        extensions.write_text(f"subjectAltName={names}\n")
        self._run("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        self._run(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key),
            *("-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", certificate),
        )
        return certificate, key

    @staticmethod
    def _run(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture
def make_authority(tmp_path: Path) -> Callable[..., Authority]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")

    def make(name: str = "authority") -> Authority:
        return Authority(tmp_path, name)

    return make


@pytest.fixture
def tls_mosquitto(tmp_path: Path, make_authority: Any) -> Iterator[Callable[..., Mosquitto]]:
    """Starts one that shows `certificate`, and wants one that `clients`, if given, signed."""
    brokers = []

    def start(certificate: tuple[Path, Path], clients: Authority | None = None) -> Mosquitto:
        # As root it would change to a user that may not read what is the test's.
        settings = f"allow_anonymous true\nuser {getpass.getuser()}\n"
        settings += f"certfile {certificate[0]}\nkeyfile {certificate[1]}\n"
        if clients is not None:
            settings += f"cafile {clients.certificate}\nrequire_certificate true\n"
        brokers.append(Mosquitto(tmp_path, settings=settings))
        brokers[-1].start()
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.stop()


@pytest.fixture(scope="module")
def lasting_mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One for all tests of a module."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@dataclass(frozen=True)
class Package:
    """A published version: the two documents that the controller serves, and its offer."""

    model: bytes
    manifest: Manifest

    @property
    def offer(self) -> Offer:
        return Offer(
            name=self.manifest.name,
            version=self.manifest.version,
            manifest_digest=self.manifest.digest(),
            manifest_size_bytes=len(self.manifest.canonical()),
            artifact_digest=self.manifest.artifact.digest,
            artifact_size_bytes=self.manifest.artifact.size_bytes,
        )

    @property
    def artifacts(self) -> dict[str, bytes]:
        return {
            self.manifest.digest(): self.manifest.canonical(),
            self.manifest.artifact.digest: self.model,
        }


def gemm_model(weights: Any, nan: bool = False) -> bytes:
    """softmax(x @ weights) for x of shape (n, 3); with `nan`, log(-|x|-1) instead: always NaN."""
    matrix = np.asarray(weights, dtype=np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["scores"])]
    if nan:
        nodes += [
            helper.make_node("Abs", ["scores"], ["positive"]),
            helper.make_node("Neg", ["positive"], ["negative"]),
            helper.make_node("Sub", ["negative", "one"], ["below"]),
            helper.make_node("Log", ["below"], ["p"]),
        ]
    else:
        nodes.append(helper.make_node("Softmax", ["scores"], ["p"], axis=1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, matrix.shape[0]])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, matrix.shape[1]])],
        [
            numpy_helper.from_array(matrix, "w"),
            numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def scores(weights: Any, inputs: Any) -> Any:
    raw = np.asarray(inputs, dtype=np.float64) @ np.asarray(weights, dtype=np.float64)
    exponentials = np.exp(raw - raw.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def make_package(
    version: str = "1",
    weights: Any = None,
    model: bytes | None = None,
    nan: bool = False,
    **changes: Any,
) -> Package:
    """A version of model `tiny`; `model` replaces the artifact's bytes, `changes` the manifest."""
    matrix = [[1.0, -1.0], [0.5, 0.5], [-1.0, 1.0]] if weights is None else weights
    content = gemm_model(matrix, nan) if model is None else model
    golden_inputs = ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-1.0, 0.5, 0.25))
    uniform = Binned(edges=(-1.0, 0.0, 1.0), shares=(0.25, 0.25, 0.25, 0.25))
    document: dict[str, Any] = {
        "name": "tiny",
        "version": version,
        "artifact": Artifact(
            digest=hashlib.sha256(content).hexdigest(), size_bytes=max(1, len(content)), opset=17
        ),
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(None, 3)),),
        "outputs": (TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        "scores_output": "p",
        "features": tuple(Feature(name=name, sensor="s") for name in FEATURES),
        "labels": LABELS,
        "golden": Golden(
            inputs=golden_inputs,
            outputs=tuple(map(tuple, scores(matrix, golden_inputs).tolist())),
        ),
        "baseline": Baseline(
            count=100,
            features=(uniform,) * 3,
            confidence=Binned(edges=(0.6, 0.8), shares=(0.2, 0.3, 0.5)),
            predictions=(0.5, 0.5),
        ),
    }
    return Package(content, Manifest(**(document | changes)))


@pytest.fixture(name="make_package", scope="session")
def make_package_fixture() -> Callable[..., Package]:
    return make_package


@pytest.fixture
def not_opted_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a user who knows of no telemetry; where onnxruntime would keep its own."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("CI", raising=False)  # there it sends nothing of itself
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return tmp_path / ".cache"
