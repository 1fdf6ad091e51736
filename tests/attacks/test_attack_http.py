"""Who reaches the controller's HTTP port: path traversal, CSRF, a request that never ends.

Lines of defence: digests and names by pattern; no name but loopback's and no other site's page
where nobody is asked who they are; limits before anything is read. A real server, and bytes as they
are sent, for a client library would mend the paths.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvicorn
from controller_bench import Controller, make_controller

from edgeloop_controller import artifacts
from edgeloop_controller.api.app import create_app
from edgeloop_controller.api.guard import Guard
from edgeloop_controller.api.peer import PeerProtocol
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.store.engine import Database

SECRET = b"s3cr3t-of-the-controller"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    limits = {"body_silence_s": 0.3, "upload_max_bytes": 10_000}
    config = ControllerConfig.model_validate({"data_dir": tmp_path, "limits": limits})
    yield make_controller(database, config)
    database.close()


@pytest.fixture
def port(controller: Controller, free_port: object) -> Iterator[int]:
    found: int = free_port()  # type: ignore[operator]
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(controller.parts.services), port=found, log_config=None, http=PeerProtocol
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join()


def ask(port: int, request: str, body: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode() + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def get(port: int, path: str, headers: str = "Host: localhost\n") -> bytes:
    return ask(port, f"GET {path} HTTP/1.1\n{headers}Connection: close\n\n")


TRAVERSALS = (
    "/v1/artifacts/../../secret",
    "/v1/artifacts/..%2f..%2fsecret",
    "/v1/artifacts/%2e%2e/%2e%2e/secret",
    "/v1/artifacts/..%5c..%5csecret",
    "/v1/artifacts/%2fetc%2fpasswd",
    "/v1/artifacts/..%252f..%252fsecret",
    "/v1/artifacts/....//secret",
    "/v1/trust/metadata/..%2f..%2fsecret",
    "/v1/trust/metadata/../../secret",
    "/v1/retraining/runs/..%2f..%2fsecret/log",
    "/docs/../secret",
    "/static-offline-docs/..%2f..%2f..%2fsecret",
    "//etc/passwd",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_path_traversal(port: int, controller: Controller, path: str) -> None:
    (controller.parts.services.config.data_dir / "secret").write_bytes(SECRET)
    answer = get(port, path)
    assert answer.split()[1] in (b"404", b"422", b"400", b"405"), answer
    assert SECRET not in answer
    assert b"root:" not in answer


def test_path_traversal_without_the_line(
    port: int, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest that is not checked for being one leads out of the directory."""

    class Anything:
        def fullmatch(self, _text: str) -> bool:
            return True

    (controller.parts.services.config.data_dir / "secret").write_bytes(SECRET)
    monkeypatch.setattr(artifacts, "_DIGEST", Anything())
    monkeypatch.setattr(
        artifacts.LocalArtifactStore, "_path", lambda self, digest: self._root / digest
    )
    assert SECRET in get(port, "/v1/artifacts/../secret")


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\nm\r\n--x--\r\n"
)


def publish(port: int, headers: str) -> bytes:
    """What a page's form sends by itself: no preflight is asked for it."""
    return ask(
        port,
        f"POST /v1/models/a/versions/1 HTTP/1.1\n{headers}Connection: close\n"
        f"Content-Type: multipart/form-data; boundary=x\nContent-Length: {len(FORM)}\n\n",
        FORM,
    )


@pytest.mark.parametrize(
    "headers",
    [
        "Host: localhost\nOrigin: https://evil.example\n",
        "Host: localhost\nOrigin: null\n",
        "Host: evil.example\nOrigin: http://evil.example\n",
        "Host: evil.example\n",
        "Host: localhost.evil.example\n",
    ],
)
def test_csrf_and_dns_rebinding(port: int, headers: str) -> None:
    assert publish(port, headers).split()[1] == b"403"


def test_csrf_without_the_line(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "_refuse_other_sites", lambda _self, _headers: None)
    answer = publish(port, "Host: localhost\nOrigin: https://evil.example\n")
    assert answer.split()[1] == b"422", "it was published, had it been a model"


@pytest.mark.parametrize("begun", ["", "GET /v1/hea", "GET /v1/health HTTP/1.1\nHost: loc"])
def test_a_head_that_drips_is_cut_off(
    port: int, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slowloris: many connections whose requests never come."""
    monkeypatch.setattr(PeerProtocol, "head_timeout_s", 0.2)
    assert ask(port, begun) == b""
    first = "GET /v1/health HTTP/1.1\nHost: localhost\n\n"
    answer = ask(port, first + begun) if begun else get(port, "/v1/health")
    assert answer.split()[1] == b"200", "a later one of a connection, too"


def test_an_endless_body_is_cut_off(port: int) -> None:
    head = "POST /v1/rollouts HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
    chunk = b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall((head + "Transfer-Encoding: chunked\n\n").replace("\n", "\r\n").encode())
        sent = 0
        with suppress(OSError):
            while sent < 200:
                connection.sendall(chunk)
                sent += 1
    assert sent < 100


def test_a_slow_body_is_given_up(port: int) -> None:
    head = "POST /v1/rollouts HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
    answer = ask(port, head + "Content-Length: 100\n\n", b"{")
    assert answer.split()[1] == b"408"


@pytest.mark.parametrize("request_", ["\x00\x01\x02", "A" * 70_000, "GET"])
def test_a_request_that_is_none_harms_nobody(port: int, request_: str) -> None:
    answer = ask(port, request_ + "\n\n")
    assert not answer or answer.split()[1] in (b"400", b"404"), answer
    assert get(port, "/v1/health").split()[1] == b"200"
