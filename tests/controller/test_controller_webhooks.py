"""Webhooks: CloudEvents to a real receiver on loopback, signed, in order, at least once."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgeloop_controller.config import WebhookConfig, WebhooksConfig
from edgeloop_controller.errors import RefusedInputError, StartError
from edgeloop_controller.services.cloud_events import (
    LoggedEvent,
    cloud_event,
    headers_of,
    parse_secrets,
)
from edgeloop_controller.services.webhooks import PASSED_OVER_SAVED_EVERY, Webhooks
from edgeloop_controller.store import events
from edgeloop_controller.store.engine import Database
from edgeloop_controller.webhook_courier import ANSWER_READ_MAX_BYTES, Courier, carrying
from edgeloop_protocol.clock import SystemClock

KEYS = (b"k" * 24, b"l" * 32)
SECRETS = [f"whsec_{base64.b64encode(key).decode()}" for key in KEYS]


def verified(key: bytes, headers: Any, body: bytes) -> bool:
    """As the specification of Standard Webhooks says, written down apart from what signs."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return f"v1,{right}" in headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """Answers with `answers` in turn, then 204; keeps what came."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    came: list[tuple[Any, bytes]] = field(default_factory=list)
    said: bytes = b"no"
    extra: dict[str, str] = field(default_factory=dict)
    holds: threading.Event | None = None

    @property
    def ids(self) -> list[int]:
        return [json.loads(body)["data"]["id"] for _, body in self.came]

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.came.append((handler.headers, body))
        if self.holds is not None:
            self.holds.wait(10)
        handler.send_response(self.answers.pop(0) if self.answers else 204)
        for name, value in self.extra.items():
            handler.send_header(name, value)
        handler.send_header("connection", "close")
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(self.said)


@pytest.fixture
def make_receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Receiver]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def make(**changes: Any) -> Receiver:
        receiver = Receiver(**changes)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
        receiver.port = server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        return receiver

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRETS[0])
    return path


@pytest.fixture
def hook(secret_file: Path) -> Callable[..., WebhookConfig]:
    def make(port: int, **changes: Any) -> WebhookConfig:
        url = f"http://127.0.0.1:{port}/hook/path-secret"
        return WebhookConfig(**({"url": url, "secret_file": secret_file} | changes))

    return make


@dataclass
class Carried:
    database: Database
    hooks: dict[str, WebhookConfig]

    def __post_init__(self) -> None:
        config = WebhooksConfig(source="urn:test", hooks=self.hooks)
        self.webhooks = Webhooks(self.database, config, SystemClock())
        self.webhooks.open()

    def cursor(self, name: str = "pager") -> Any:
        return next(s.cursor for s in self.webhooks.status() if s.name == name)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        courier = Courier(self.webhooks, SystemClock(), poll_s=0.02, wait_s_min=0.005)
        courier.start()
        try:
            yield
        finally:
            courier.stop()


def add(database: Database, *kinds: str, at: float | None = None) -> None:
    with database.writing() as session:
        for kind in kinds:
            events.add(session, time.time() if at is None else at, kind, "watch@2", {"n": 1})


def test_an_event_comes_as_a_signed_cloud_event(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any, secret_file: Path
) -> None:
    receiver = make_receiver()
    add(database, "rollout.started")  # before there was a hook
    carried = Carried(database, {"pager": hook(receiver.port)})
    add(database, "rollout.halted", "patch.made", "drift.raised")
    with carried.running():
        wait_until(lambda: carried.cursor().delivered == 2)
        secret_file.write_text("# the new one first\n" + "\n".join(reversed(SECRETS)) + "\n")
        add(database, "device.joined")
        wait_until(lambda: carried.cursor().delivered == 3)
    assert receiver.ids == [2, 4, 5]
    headers, body = receiver.came[0]
    document = json.loads(body)
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert document["specversion"] == "1.0"
    assert document["type"] == "edgeloop.rollout.halted"
    assert (document["source"], document["subject"]) == ("urn:test", "watch@2")
    assert document["data"]["data"] == {"n": 1}
    assert headers["webhook-id"] == document["id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert verified(KEYS[0], headers, body)
    assert not verified(KEYS[1], headers, body)
    assert not verified(KEYS[0], headers, body + b" ")
    rotated = receiver.came[2]
    assert verified(KEYS[0], *rotated)
    assert verified(KEYS[1], *rotated)


def test_a_failure_is_tried_again_in_order(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any
) -> None:
    receiver = make_receiver(answers=[500, 503, 429, 204, 500])
    carried = Carried(database, {"pager": hook(receiver.port)})
    add(database, "rollout.started", "rollout.done")
    with carried.running():
        wait_until(lambda: carried.cursor().delivered == 2)
    assert receiver.ids == [1, 1, 1, 1, 2, 2]
    assert len({body for _, body in receiver.came}) == 2
    assert carried.cursor().error == ""
    assert carried.cursor().failing_since is None


def test_a_restart_goes_on_from_the_cursor(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any
) -> None:
    """Nothing is held but in the database: another courier over it is what a kill leaves."""
    receiver = make_receiver(answers=[204, 500, 500, 500])
    hooks = {"pager": hook(receiver.port)}
    first = Carried(database, hooks)
    add(database, *["rollout.started"] * 3)
    with first.running():
        wait_until(lambda: first.cursor().attempts >= 1)
    add(database, "rollout.done")
    again = Carried(database, hooks)
    with again.running():
        wait_until(lambda: again.cursor().delivered == 4)
    assert sorted(set(receiver.ids)) == [1, 2, 3, 4]
    assert receiver.ids == sorted(receiver.ids)
    assert receiver.ids.count(1) == 1


def test_a_redirect_is_not_followed(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any
) -> None:
    elsewhere = make_receiver()
    there = {"location": f"http://127.0.0.1:{elsewhere.port}/"}
    receiver = make_receiver(answers=[307] * 1000, extra=there)
    carried = Carried(database, {"pager": hook(receiver.port)})
    add(database, "rollout.started")
    with carried.running():
        wait_until(lambda: "redirect" in carried.cursor().error)
    assert elsewhere.came == []


def test_a_dead_and_a_slow_receiver_hold_up_nobody_else(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any, free_port: Any
) -> None:
    slow, alive = make_receiver(holds=threading.Event()), make_receiver()
    hooks = {
        "dead": hook(free_port()),
        "slow": hook(slow.port, timeout_s=0.1),
        "alive": hook(alive.port),
    }
    carried = Carried(database, hooks)
    add(database, *["rollout.started"] * 30)
    with carried.running():
        wait_until(lambda: carried.cursor("alive").delivered == 30)
        wait_until(lambda: carried.cursor("slow").attempts >= 2)
        wait_until(lambda: carried.cursor("dead").attempts >= 1)
    assert alive.ids == list(range(1, 31))
    assert carried.cursor("slow").error == "no answer within 0.1 s"
    assert carried.cursor("slow").through == carried.cursor("dead").through == 0
    assert slow.holds is not None
    slow.holds.set()


def test_one_that_drips_is_bounded_as_a_whole(
    database: Database, hook: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the timeout, the answer never."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not done.wait(0.02):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        carried = Carried(database, {"pager": hook(listening.getsockname()[1], timeout_s=0.2)})
        add(database, "rollout.started")
        with carried.running():
            wait_until(lambda: carried.cursor().attempts >= 1)
        assert carried.cursor().error == "no answer within 0.2 s"
        done.set()
        thread.join()


def test_what_is_never_taken_is_given_up_and_said(
    database: Database, make_receiver: Any, hook: Any, wait_until: Any
) -> None:
    receiver = make_receiver(answers=[500, 500, 422, 422, 500], said=b"\x00" + b"x" * 10_000)
    hooks = {"pager": hook(receiver.port, attempts_max=2, kinds=("*",))}
    carried = Carried(database, hooks)
    add(database, "rollout.started", "rollout.halted")
    add(database, "rollout.done", at=1.0)  # so long ago that one failed attempt is the last
    add(database, "drift.raised")
    with carried.running():
        wait_until(lambda: carried.cursor().delivered == 1)
    assert receiver.ids == [1, 1, 2, 2, 3, 4]
    assert carried.cursor().given_up == 3
    with database.reading() as session:
        given_up = events.after(session, 0, "webhook.gave_up", 10)
    assert [(e.subject, e.data["event"], e.data["attempts"]) for e in given_up] == [
        ("pager", 1, 2),
        ("pager", 2, 2),
        ("pager", 3, 1),
    ]
    assert len(given_up[0].data["error"]) <= ANSWER_READ_MAX_BYTES + 50
    assert "\x00" not in given_up[0].data["error"]


def test_a_database_that_cannot_settle_delivers_again(
    database: Database,
    make_receiver: Any,
    hook: Any,
    wait_until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = make_receiver()
    carried = Carried(database, {"pager": hook(receiver.port)})
    add(database, "rollout.started", "rollout.done")
    settle, failures = carried.webhooks.delivered, [OSError("disk full")]

    def delivered(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        settle(*arguments)

    monkeypatch.setattr(carried.webhooks, "delivered", delivered)
    with carried.running():
        wait_until(lambda: carried.cursor().delivered == 2)
    assert receiver.ids == [1, 1, 2]


def test_events_of_other_kinds_are_passed_over_without_writing_each(
    database: Database, hook: Any, free_port: Any
) -> None:
    carried = Carried(database, {"pager": hook(free_port(), kinds=("rollout.halted",))})
    add(database, *["device.connected"] * (PASSED_OVER_SAVED_EVERY - 1))
    assert carried.webhooks.due("pager").events == ()
    assert carried.cursor().through == 0
    add(database, "webhook.gave_up")
    assert carried.webhooks.due("pager").events == ()
    assert carried.cursor().through == PASSED_OVER_SAVED_EVERY
    add(database, "rollout.halted")
    assert len(carried.webhooks.due("pager").events) == 1


def test_a_log_that_a_restored_backup_made_shorter(
    database: Database, hook: Any, free_port: Any
) -> None:
    carried = Carried(database, {"pager": hook(free_port())})
    add(database, "rollout.started")
    with database.writing() as session:
        session.merge(carried.cursor()).through = 99
    again = Carried(database, carried.hooks)
    add(database, "rollout.halted")
    assert [e.kind for e in again.webhooks.due("pager").events] == ["rollout.halted"]


def test_the_same_number_at_another_time_is_another_event() -> None:
    def message(at: float) -> Any:
        return cloud_event(LoggedEvent(7, at, "rollout.done", "x", {"f": float("nan")}, None), "s")

    assert message(1.0).id != message(2.0).id
    assert message(1.0).body == message(1.0).body
    assert json.loads(message(1.5).body)["time"] == "1970-01-01T00:00:01.500000Z"
    assert json.loads(message(1.0).body)["data"]["data"] == {"f": None}


def test_a_signature_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries' own tests."""
    (secret,) = parse_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = cloud_event(LoggedEvent(1, 1.0, "a.b", "x", {}, None), "s")
    message = type(message)("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    headers = headers_of(message, (secret,), 1614265330.0)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 secrets"),
        ("\n".join(SECRETS * 3), "6 secrets"),
        ("whsec_!!!", "not base64"),
        (SECRETS[0].removeprefix("whsec_"), "whsec_"),
        ("whsec_aGk=", "2 bytes"),
    ],
)
def test_a_secret_that_cannot_be_used_is_not_repeated(text: str, says: str) -> None:
    with pytest.raises(RefusedInputError, match=says) as refused:
        parse_secrets(text)
    assert "whsec_aGk" not in str(refused.value)
    assert "openssl" in refused.value.hint


def test_without_its_secret_the_controller_does_not_start(
    database: Database, hook: Any, tmp_path: Path
) -> None:
    config = WebhooksConfig(hooks={"pager": hook(1, secret_file=tmp_path / "none")})
    webhooks = Webhooks(database, config, SystemClock())
    with (
        pytest.raises(StartError, match=r"hooks\.pager.*cannot read secret_file"),
        carrying(webhooks, SystemClock()),
    ):
        pass


@pytest.mark.parametrize("kind", ["rollout", "rollout.*.x", "*.halted", "", "**"])
def test_a_kind_that_names_no_event_is_refused(hook: Any, kind: str) -> None:
    with pytest.raises(ValueError, match="kinds"):
        hook(1, kinds=(kind,))


def test_how_they_stand(
    controller: Any, cli: Any, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no webhook is configured" in cli.table("webhook", "list")
    webhooks = controller.parts.services.webhooks
    monkeypatch.setattr(webhooks, "hooks", {"pager": hook(9, kinds=("rollout.*",))})
    webhooks.open()
    database = controller.parts.services.database
    add(database, "rollout.halted")
    webhooks.failed("pager", "ConnectError: refused")
    (shown,) = cli.json("webhook", "list")["items"]
    assert shown["receiver"] == "http://127.0.0.1:9"
    assert (shown["state"], shown["behind"], shown["attempts"]) == ("retrying", 1, 1)
    text = cli.table("webhook", "list")
    assert "path-secret" not in text
    monkeypatch.setattr(webhooks, "hooks", {})
    assert cli.json("webhook", "list")["items"][0]["state"] == "not_configured"
