"""The Open Inference Protocol by its real client, and swaps under load: real runner processes."""

import http.client
import importlib.util
import json
import queue
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import RunnerExited, RunnerSelfTested, RunnerServing
from edgeloop_agent.shell.model_store import ModelStore, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_controller.packaging.package import package
from edgeloop_protocol.manifest import ManifestDraft

pytestmark = pytest.mark.e2e


class Device:
    """A slot's runners, started and swapped as the core does it."""

    def __init__(self, directory, source, **slot):
        config = AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": str(directory),
                "controller_url": "http://127.0.0.1:1",
                "slots": {"main": {"source": source, **slot}},
            }
        )
        self.disk = OsDisk(directory)
        self.store = ModelStore(self.disk)
        self.words = queue.Queue()
        self.host = RunnerProcesses(config, self.disk, self.words.put)
        self.number = 0

    def install(self, package):
        digest = package.manifest.digest()
        self.store.put_manifest(digest, package.manifest.canonical())
        self.disk.path(model_path(digest)).write_bytes(package.model)

    def start(self, package):
        self.install(package)
        self.number += 1
        self.host.start(StartRunner("main", self.number, package.offer.ref, None))
        tested = self.wait_for(RunnerSelfTested)
        assert tested.passed, tested.detail

    def serve(self, package):
        self.start(package)
        self.go()

    def go(self):
        self.host.go("main", self.number)
        self.wait_for(RunnerServing)

    def swap(self, package):
        old = self.number
        self.start(package)
        self.host.stop("main", old, kill=False)
        self.wait_for(RunnerExited)
        self.go()

    def wait_for(self, kind):
        ends = time.monotonic() + 30
        while True:
            word = self.words.get(timeout=max(0.0, ends - time.monotonic()))
            if isinstance(word, kind):
                return word
            assert not isinstance(word, RunnerExited), word

    def close(self):
        self.host.stop_all(kill=True)
        while self.host.alive():
            time.sleep(0.01)


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def device(tmp_path, free_port):
    device = Device(tmp_path, {"kind": "open_inference", "port": free_port})
    device.port = free_port
    yield device
    device.close()


def test_the_real_client_finds_a_server_that_speaks_its_protocol(device, make_package):
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    seven = make_package("7")
    name = seven.manifest.name
    device.serve(seven)
    client = InferenceServerClient(f"127.0.0.1:{device.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, "7")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata(name)
    assert metadata["versions"] == ["7"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    values = np.array([[1, 0, -1], [-1, 0, 1]], dtype=np.float32)
    for binary_in in (True, False):
        for binary_out in (True, False):
            tensor = InferInput("x", list(values.shape), "FP32")
            tensor.set_data_from_numpy(values, binary_data=binary_in)
            outputs = [
                InferRequestedOutput(one, binary_data=binary_out)
                for one in ("p", "label", "confidence")
            ]
            found = client.infer(name, [tensor], outputs=outputs, request_id="r1")
            assert found.get_response()["model_version"] == "7"
            assert found.get_response()["id"] == "r1"
            scores = found.as_numpy("p")
            assert scores.shape == (2, 2)
            np.testing.assert_allclose(scores[0, 0], 1 / (1 + np.exp(-4.0)), atol=1e-6)
            labels = [x.decode() if isinstance(x, bytes) else x for x in found.as_numpy("label")]
            assert labels == ["left", "right"]
            np.testing.assert_allclose(found.as_numpy("confidence"), scores.max(axis=1))
    tensor = InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match=r"it takes \[-1, 3\]"):
        client.infer(name, [tensor])
    tensor = InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.full((1, 3), np.nan, np.float32))
    with pytest.raises(InferenceServerException, match="NaN or Inf"):
        client.infer(name, [tensor])
    assert client.is_server_ready(), "nor does a bad request end anything"


def test_no_request_fails_over_several_swaps_under_load(device, make_package):
    packages = [make_package(str(n)) for n in range(1, 5)]
    name = packages[0].manifest.name
    device.serve(packages[0])
    stop, problems, answered = threading.Event(), [], []

    def load(number):
        """One connection for all of it: http.client says of a closed one, and does not retry."""
        connection = http.client.HTTPConnection("127.0.0.1", device.port, timeout=30)
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, -1]}]}
        )
        while not stop.is_set():
            try:
                connection.request("POST", f"/v2/models/{name}/infer", body)
                response = connection.getresponse()
                document = json.loads(response.read())
                if response.status != 200:
                    problems.append(document)
                answered.append((time.monotonic(), document.get("model_version")))
                if number % 3 == 0:
                    stop.wait(0.05)  # an idle keep-alive connection most of the time
            except (OSError, http.client.HTTPException, ValueError) as error:
                problems.append(repr(error))
                return
        connection.close()

    threads = [threading.Thread(target=load, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    try:
        for package in packages[1:]:
            device.swap(package)
            seen = len(answered)
            ends = time.monotonic() + 20
            while len(answered) < seen + 200 and time.monotonic() < ends and not problems:
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert problems == []
    versions = [version for _, version in sorted(answered)]
    assert set(versions) == {"1", "2", "3", "4"}
    assert versions[-1] == "4"
    assert len(answered) > 600


def test_half_a_request_is_finished_with_the_next_runner(device, make_package):
    device.serve(make_package("1"))
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, -1]}]}
    ).encode()
    name = make_package("1").manifest.name
    head = (
        f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    with socket.create_connection(("127.0.0.1", device.port), timeout=30) as client:
        client.sendall(request[:-20])
        time.sleep(0.2)  # so that it has been read; if not, the test proves less, not wrongly
        device.swap(make_package("2"))
        client.sendall(request[-20:] + request)  # and a second one at once
        got = b""
        while got.count(b'"model_version":"2"') < 2:
            chunk = client.recv(65536)
            assert chunk, got
            got += chunk
        assert got.count(b"HTTP/1.1 200") == 2


def test_it_serves_on_a_unix_socket(tmp_path, make_package):
    path = tmp_path / "infer.sock"
    device = Device(tmp_path, {"kind": "open_inference", "path": str(path)})
    try:
        device.serve(make_package("1"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        device.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", None),
        (b"GET /v3 HTTP/1.1\r\nhost: x\r\n\r\n", b"404"),
        (b"DELETE /v2 HTTP/1.1\r\nhost: x\r\n\r\n", b"405"),
        (b"POST /v2/models/NAME/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{", b"400"),
        (
            b"POST /v2/models/NAME/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
            b"inference-header-content-length: 9\r\n\r\n{}",
            b"400",
        ),
    ],
)
def test_what_is_no_request_of_the_protocol(device, make_package, sent, status):
    package = make_package("1")
    device.serve(package)
    with socket.create_connection(("127.0.0.1", device.port), timeout=10) as client:
        client.sendall(sent.replace(b"NAME", package.manifest.name.encode()))
        got = client.recv(4096)
        assert got == b"" if status is None else got.split()[1] == status
    with socket.create_connection(("127.0.0.1", device.port), timeout=10) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


class Published:
    """As `make_package` makes one."""

    def __init__(self, manifest, model):
        self.manifest, self.model = manifest, model
        self.offer = SimpleNamespace(ref=manifest.ref())


def test_a_streaming_tflite_model_remembers_until_a_sequence_starts(device):
    origin = importlib.util.find_spec("pymicro_wakeword").origin
    model = (Path(origin).parent / "models" / "hey_jarvis.tflite").read_bytes()
    manifest = package(model, "jarvis", "1", ManifestDraft(labels=("other", "hey jarvis")))
    device.serve(Published(manifest, model))
    connection = http.client.HTTPConnection("127.0.0.1", device.port, timeout=30)
    name = manifest.inputs[0].name
    for _ in range(2):
        found = []
        for place, row in enumerate(manifest.golden.inputs):
            tensor = {"name": name, "datatype": "FP32", "shape": [1, 3, 40], "data": list(row)}
            document = {"inputs": [tensor], "parameters": {"sequence_start": place == 0}}
            connection.request("POST", "/v2/models/jarvis/infer", json.dumps(document))
            answer = json.loads(connection.getresponse().read())
            found.append(next(o["data"] for o in answer["outputs"] if o["shape"] == [1, 2]))
        np.testing.assert_allclose(found, manifest.golden.outputs, atol=1e-6)
