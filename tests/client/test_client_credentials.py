"""Where a token comes from, and where it may go."""

import os
from pathlib import Path

import httpx
import pytest

from edgeloop import Fleet
from edgeloop.client import Client
from edgeloop.credentials import checked_for, tls_context, token_of
from edgeloop.errors import ApiError, EdgeloopError

TOKEN = "edgeloop_abc"


def token_file(tmp_path: Path, content: str = TOKEN + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_the_variable_before_the_file(tmp_path: Path) -> None:
    path = str(token_file(tmp_path))
    assert token_of({}) is None
    assert token_of({"EDGELOOP_TOKEN_FILE": path}) == TOKEN
    assert token_of({"EDGELOOP_TOKEN_FILE": path, "EDGELOOP_TOKEN": "edgeloop_x"}) == "edgeloop_x"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path, mode=mode)
    with pytest.raises(EdgeloopError, match="chmod 600"):
        token_of({"EDGELOOP_TOKEN_FILE": str(path)})


def test_a_file_that_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(EdgeloopError, match="cannot be read: No such file"):
        token_of({"EDGELOOP_TOKEN_FILE": str(tmp_path / "nowhere")})
    with pytest.raises(EdgeloopError, match="is empty"):
        token_of({"EDGELOOP_TOKEN_FILE": str(token_file(tmp_path, " \n"))})


@pytest.mark.parametrize(
    "url",
    ["https://fleet.example", "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080"],
)
def test_where_it_may_go(url: str) -> None:
    assert checked_for(url, TOKEN, {}) == TOKEN


@pytest.mark.parametrize(
    "url", ["http://fleet.example", "http://10.0.0.4:8080", "http://localhost.evil", "nonsense"]
)
def test_never_in_the_clear_to_another_machine(url: str) -> None:
    with pytest.raises(EdgeloopError, match="in the clear"):
        checked_for(url, TOKEN, {})
    assert checked_for(url, TOKEN, {"EDGELOOP_INSECURE": "1"}) == TOKEN
    assert checked_for(url, None, {}) is None


@pytest.mark.parametrize("token", ["a b", "a\nHost: evil", "ä"])
def test_a_token_is_one_word(token: str) -> None:
    with pytest.raises(EdgeloopError, match="printable ASCII"):
        checked_for("https://x", token, {})


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    assert tls_context({}) is True
    path = token_file(tmp_path)
    with pytest.raises(EdgeloopError, match="EDGELOOP_CA_FILE"):
        tls_context({"EDGELOOP_CA_FILE": str(path)})


def test_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(answer)
    monkeypatch.setitem(os.environ, "EDGELOOP_TOKEN", TOKEN)
    with Client("https://x", transport=transport) as client:
        client.get("/health")
    with Fleet("https://x", transport=transport, token="edgeloop_mine") as fleet:
        fleet.client.get("/health")
        assert "edgeloop_mine" not in repr(fleet) + repr(fleet.client)
    sent = [request.headers["authorization"] for request in asked]
    assert sent == [f"Bearer {TOKEN}", "Bearer edgeloop_mine"]


def test_a_busy_controller_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("edgeloop.client.time.sleep", slept.append)
    statuses = [429, 429, 200]

    def answer(_request: httpx.Request) -> httpx.Response:
        status = statuses.pop(0) if statuses else 429
        error = {"error": {"code": "too_many_requests", "message": "slowly", "hint": ""}}
        return httpx.Response(status, json=error, headers={"retry-after": "2"})

    with Client("http://localhost", transport=httpx.MockTransport(answer)) as client:
        client.get("/health")
        assert slept == [2.0, 2.0]
        with pytest.raises(ApiError, match="slowly"):
            client.get("/health")
    assert len(slept) == 2 + 4
