"""Latency of the inference endpoint under load, beside FastAPI on uvicorn with the same model.

`python -m edgeloop_simulators.bench.serve`: the same requests (JSON, one example), from one process
with keep-alive connections that each wait for their answer; rounds take turns.
"""

import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from edgeloop_simulators.bench.model import BenchModel, bench_model
from edgeloop_simulators.bench.runners import live_runner
from edgeloop_simulators.bench.table import Row
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.fleet import HOST, free_ports

CONNECTIONS: Final = 8
ROUNDS: Final = 3
REQUESTS: Final = 4000
WARM_REQUESTS: Final = 200
START_TIMEOUT_S: Final = 30.0
PATH: Final = "/v2/models/bench/infer"


def serve_rows(model: BenchModel, directory: Path) -> list[Row]:
    ours_port, theirs_port = free_ports(2)
    (directory / "ours").mkdir()
    source = {"kind": "open_inference", "port": ours_port}
    ours, theirs = [], []
    with (
        live_runner(model, directory / "ours", 1.0, source=source) as runner,
        _fastapi(model, directory, theirs_port),
    ):
        runner.go()
        request = _request(model)
        for port in (ours_port, theirs_port):
            _wait_until_it_answers(port)
            _latencies_us(port, request, WARM_REQUESTS)
        for _ in range(ROUNDS):
            ours.append(_latencies_us(ours_port, request, REQUESTS))
            theirs.append(_latencies_us(theirs_port, request, REQUESTS))
    return [
        Row(
            f"OIP request, {words}, {CONNECTIONS} connections",
            median(float(np.percentile(one, percent)) for one in ours),
            median(float(np.percentile(one, percent)) for one in theirs),
            "us",
            "FastAPI, uvicorn, h11",
            0,
        )
        for words, percent in (("median", 50), ("p99", 99))
    ]


def _request(model: BenchModel) -> bytes:
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, model.examples.shape[1]],
        "data": model.examples[0].tolist(),
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _latencies_us(port: int, request: bytes, count: int) -> list[float]:
    """Each connection sends its next request when its answer has come whole."""
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection((HOST, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ, [time.perf_counter(), b""])
            connection.sendall(request)
        while len(latencies) < count:
            for key, _ in selector.select():
                connection = key.fileobj  # type: ignore[assignment]
                state = key.data
                state[1] += connection.recv(65536)
                if not _is_whole(state[1]):
                    continue
                now = time.perf_counter()
                latencies.append((now - state[0]) * 1e6)
                if not state[1].startswith(b"HTTP/1.1 200"):
                    raise SimulatorError(f"the benchmark's server says {state[1][:300]!r}")
                state[0], state[1] = time.perf_counter(), b""
                connection.sendall(request)
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return latencies


def _is_whole(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    lower = head.lower()
    length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return len(body) >= length


def _wait_until_it_answers(port: int) -> None:
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SimulatorError(f"nothing answers on port {port} after {START_TIMEOUT_S:.0f} s")


@contextmanager
def _fastapi(model: BenchModel, directory: Path, port: int) -> Iterator[None]:
    path = directory / "fastapi.onnx"
    path.write_bytes(model.onnx)
    command = [sys.executable, "-m", "edgeloop_simulators.bench.serve", str(path), str(port)]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def plain_server(path: Path, port: int) -> None:
    """What one would write: a FastAPI route around a session, with the same settings as ours."""
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    app = FastAPI()

    class Tensor(BaseModel):
        name: str
        datatype: str
        shape: list[int]
        data: list[float]

    class Inputs(BaseModel):
        inputs: list[Tensor]

    async def infer(asked: Inputs) -> dict[str, Any]:
        tensor = asked.inputs[0]
        values = np.asarray(tensor.data, dtype=np.float32).reshape(tensor.shape)
        (scores,) = session.run(None, {tensor.name: values})
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": list(scores.shape),
            "data": scores.ravel().tolist(),
        }
        return {"model_name": "bench", "model_version": "1", "outputs": [output]}

    app.post(PATH)(infer)
    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False, http="h11")


def main() -> None:
    from rich.console import Console

    from edgeloop_simulators.bench.table import show

    if len(sys.argv) > 1:
        plain_server(Path(sys.argv[1]), int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="edgeloop-bench-") as made:
        show("The inference endpoint", serve_rows(bench_model(), Path(made)), Console())


if __name__ == "__main__":
    main()
