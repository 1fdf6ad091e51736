"""MLflow's registry: a server on loopback that answers as MLflow 3.17 does (tests/e2e has the real
one), the controller's real database, publishing and HTTP API."""

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import onnx
import pytest

from edgeloop_controller import composition
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.config import ControllerConfig, LimitsConfig
from edgeloop_controller.core.mlflow_versions import ModelUri
from edgeloop_controller.errors import MlflowError, PackagingError, StartError, TooLargeError
from edgeloop_controller.mlflow_config import FollowConfig, MlflowConfig
from edgeloop_controller.mlflow_registry import MlflowRegistry
from edgeloop_controller.services import mlflow_following
from edgeloop_controller.store import events, rollouts
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

SECRET = "0123456789abcdef"
CHAMPION = ModelUri("watch", alias="champion")
MLMODEL = """\
flavors:
  onnx: {data: model.onnx, code: null, extra_files: [{path: extra_files/model.toml}]}
  python_function: {data: model.onnx, loader_module: mlflow.onnx}
mlflow_version: 3.17.2
"""


@dataclass
class FakeMlflow:
    """`files` by version; `fails`: a status that it answers to everything."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    status: str = "READY"
    fails: int | None = None
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    port: int = 0

    def log(self, number: str, model: bytes, draft: str = "", **tags: str) -> None:
        files = {"MLmodel": MLMODEL.encode(), "model.onnx": model}
        if draft:
            files["extra_files/model.toml"] = draft.encode()
        self.files[number] = files
        self.tags[number] = {f"edgeloop.{key}": value for key, value in tags.items()}

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        url = urlsplit(handler.path)
        query = dict(parse_qsl(url.query))
        self.asked.append(query.get("path", url.path.rpartition("/")[2]))
        self.authorizations.append(handler.headers["authorization"])
        if self.fails is not None:
            return self.fails, b'{"message": "out of order"}'
        version = query.get("version") or self.aliases.get(query.get("alias", ""), "")
        if query["name"] != "watch" or (version not in self.files and "version" in query):
            return 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}'
        if url.path == "/model-versions/get-artifact":
            content = self.files[version].get(query["path"])
            return (404, b'{"message": "No such artifact"}') if content is None else (200, content)
        if version not in self.files:
            return 400, b'{"message": "Registered model alias not found."}'
        found = {
            "name": "watch",
            "version": version,
            "run_id": f"run-{version}",
            "status": self.status,
            "tags": [{"key": k, "value": v} for k, v in self.tags.get(version, {}).items()],
        }
        return 200, json.dumps({"model_version": found}).encode()


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMlflow]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeMlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = fake.answer(self)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def follow() -> dict[str, Any]:
    """Tests that follow nothing empty it before `controller` is made."""
    return {"lab": {"model": "watch", "alias": "champion", "rollout": True, "waves": ["100%"]}}


@pytest.fixture
def config(tmp_path: Path, mlflow: FakeMlflow, follow: dict[str, Any]) -> ControllerConfig:
    (tmp_path / "hook.secret").write_text(f"# of MLflow's webhook\n{SECRET}\n")
    return ControllerConfig(
        data_dir=tmp_path,
        mlflow=MlflowConfig(
            tracking_uri=f"http://127.0.0.1:{mlflow.port}",
            webhook_secret_file=tmp_path / "hook.secret",
            follow={name: FollowConfig(**one) for name, one in follow.items()},
        ),
    )


@pytest.fixture
def following(controller: Any) -> Any:
    controller.parts.services.mlflow.open()
    return controller.parts.services.mlflow.following


@pytest.fixture
def happened(controller: Any) -> Callable[[str], list[Any]]:
    def of(kind: str) -> list[Any]:
        with controller.parts.services.database.reading() as session:
            return list(events.latest(session, kind, 100))

    return of


@pytest.fixture
def rolled_out(controller: Any) -> Callable[[], list[tuple[str, str]]]:
    """(version, status), oldest first."""

    def look() -> list[tuple[str, str]]:
        services = controller.parts.services
        with services.database.reading() as session:
            return [
                (services.registry.manifest(row.manifest_digest).version, row.status)
                for row in rollouts.every(session, 100)[::-1]
            ]

    return look


def test_a_version_is_published_by_its_alias_and_by_its_number(
    cli: Any, mlflow: FakeMlflow, tiny_model: Any, draft_toml: str
) -> None:
    mlflow.log("3", tiny_model(), draft_toml)
    mlflow.aliases["champion"] = "3"
    first = cli.json("publish", "models:/watch@champion")
    assert (first["name"], first["version"], first["created"]) == ("watch", "3", True)
    assert first["manifest"]["labels"] == ["still", "walk"]
    assert first["artifact_digest"] == hashlib.sha256(tiny_model()).hexdigest()
    again = cli.json("publish", "models:/watch/3")
    assert (again["manifest_digest"], again["created"]) == (first["manifest_digest"], False)
    assert "watch@3 was published before, the same" in cli.run("publish", "models:/watch/3").stdout


def test_lineage_and_audit_say_where_it_is_from(
    cli: Any, mlflow: FakeMlflow, tiny_model: Any
) -> None:
    mlflow.log("3", tiny_model(), version="2.1")
    mlflow.aliases["champion"] = "3"
    cli.run("publish", "models:/watch@champion", "--name", "wrist")
    links = cli.json("lineage", "wrist@2.1")["chain"]
    assert [link["kind"] for link in links] == ["version", "mlflow"]
    assert links[1]["document"] == {
        "tracking_uri": f"http://127.0.0.1:{mlflow.port}",
        "model": "watch",
        "version": "3",
        "run_id": "run-3",
        "alias": "champion",
    }
    assert "models:/watch/3, found as @champion, of MLflow's run run-3" in links[1]["text"]
    entry = cli.json("audit")["items"][-1]
    assert (entry["created"], entry["outcome"]) == ("version:wrist@2.1", "done")
    assert entry["essence"]["uri"] == "models:/watch@champion"
    assert "model=watch" in cli.run("events").stdout


def test_other_bytes_under_a_published_name_are_a_conflict(
    cli: Any, mlflow: FakeMlflow, tiny_model: Any
) -> None:
    mlflow.log("3", tiny_model(0))
    cli.run("publish", "models:/watch/3")
    mlflow.log("3", tiny_model(1))
    said = cli.refused(ExitCode.CONFLICT, "publish", "models:/watch/3")
    assert "watch@3 is published already, with another model file" in said


@pytest.mark.parametrize(
    ("uri", "code", "why"),
    [
        ("models:/watch@nobody", ExitCode.NOT_FOUND, "MLflow has no models:/watch@nobody"),
        ("models:/watch/9", ExitCode.NOT_FOUND, "MLflow has no models:/watch/9"),
        ("models:/watch/latest", ExitCode.REFUSED_INPUT, "'latest' moves by itself"),
        ("watch", ExitCode.REFUSED_INPUT, "models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_said(cli: Any, uri: str, code: ExitCode, why: str) -> None:
    assert why in cli.refused(code, "publish", uri)


def test_a_pickle_is_never_fetched(cli: Any, mlflow: FakeMlflow) -> None:
    mlmodel = b"flavors: {sklearn: {pickled_model: model.pkl}, python_function: {}}"
    mlflow.files["3"] = {"MLmodel": mlmodel, "model.pkl": b"\x80\x04."}
    said = cli.refused(ExitCode.REFUSED_INPUT, "publish", "models:/watch/3")
    assert "models:/watch/3 cannot be published: it is of the flavour sklearn" in said
    assert "mlflow.onnx.log_model" in said
    assert mlflow.asked == ["get", "MLmodel"]


def test_weights_that_mlflow_keeps_beside_the_model_come_inside(
    cli: Any, mlflow: FakeMlflow, tiny_model: Any, draft_toml: str, tmp_path: Path
) -> None:
    proto = onnx.load_model_from_string(tiny_model())
    onnx.save(
        proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin"
    )
    mlflow.log("3", (tmp_path / "m.onnx").read_bytes(), draft_toml)
    said = cli.refused(ExitCode.REFUSED_INPUT, "publish", "models:/watch/3")
    assert "its weights are in w.bin, which is not there" in said
    mlflow.files["3"]["w.bin"] = b"\0"
    assert "truncated" in cli.refused(ExitCode.REFUSED_INPUT, "publish", "models:/watch/3")
    mlflow.files["3"]["w.bin"] = (tmp_path / "w.bin").read_bytes()
    cli.run("publish", "models:/watch/3")
    (item,) = cli.json("model", "show", "watch")["items"]
    assert item["version"] == "3"


def publish(controller: Any, number: str = "3") -> Any:
    return controller.parts.services.mlflow.publishing.publish(ModelUri("watch", version=number))


def test_a_directory_without_mlmodel_may_hold_a_model(
    controller: Any, mlflow: FakeMlflow, tiny_model: Any, draft_toml: str, baseline_parquet: Any
) -> None:
    mlflow.files["3"] = {
        "model.onnx": tiny_model(),
        "model.toml": draft_toml.encode(),
        "baseline.parquet": baseline_parquet(),
    }
    manifest = publish(controller).manifest
    assert manifest.labels == ("still", "walk")
    assert manifest.baseline is not None
    mlflow.files["4"] = {"model.pkl": b"\x80\x04."}
    with pytest.raises(PackagingError, match=r"no model\.onnx and no model\.tflite"):
        publish(controller, "4")


def test_a_tagged_digest_is_checked(controller: Any, mlflow: FakeMlflow, tiny_model: Any) -> None:
    mlflow.log("3", tiny_model(), sha256=hashlib.sha256(tiny_model()).hexdigest().upper())
    assert publish(controller).created
    mlflow.log("4", tiny_model(1), sha256=hashlib.sha256(tiny_model()).hexdigest())
    with pytest.raises(PackagingError, match=r"the tag edgeloop\.sha256 says"):
        publish(controller, "4")


@pytest.mark.parametrize(
    "mlmodel",
    [b"flavors: [", b"[" * 20_000, b"a: &a [b]\nb: !!python/object/apply:os.getcwd []", b"\xff"],
)
def test_a_strange_mlmodel_file_is_refused(
    controller: Any, mlflow: FakeMlflow, mlmodel: bytes
) -> None:
    mlflow.files["3"] = {"MLmodel": mlmodel}
    with pytest.raises(PackagingError, match="MLmodel file cannot be read"):
        publish(controller)


def test_a_model_above_the_limit_is_not_read_to_its_end(
    controller: Any, config: ControllerConfig, mlflow: FakeMlflow
) -> None:
    limited = config.model_copy(update={"limits": LimitsConfig(upload_max_bytes=1000)})
    services = controller.parts.services
    parts = composition.build(
        limited,
        services.database,
        controller.broker,
        controller.clock,
        services.artifacts,
        LocalExecutor(),
    )
    mlflow.log("3", b"x" * 1001)
    with pytest.raises(TooLargeError, match=r"model\.onnx of models:/watch/3 is above .* 1000"):
        parts.services.mlflow.publishing.publish(ModelUri("watch", version="3"))


# The registry's client alone, against answers that no MLflow gives.


def said(content: bytes, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


def registry(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response], **changes: Any
) -> MlflowRegistry:
    times = iter(range(1000))
    return MlflowRegistry(
        MlflowConfig(tracking_uri="http://mlflow/sub", timeout_s=5, **changes),
        lambda: next(times),
        httpx.MockTransport(answer),
        {"MLFLOW_TRACKING_TOKEN": "from-the-environment"},
    )


def test_credentials_are_read_each_time_and_kept_to_the_server(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", ""))
        assert request.url.path == "/sub/api/2.0/mlflow/registered-models/alias"
        return said(b"", 302, location="http://elsewhere/")

    secret = tmp_path / "secret"
    client = registry(tmp_path, answer, secret_file=secret, username="me")
    for written in ("one\n", "two\n"):
        secret.write_text(written)
        with pytest.raises(MlflowError, match="answered 302"):
            client.look_up(CHAMPION, 1e9)
    pairs = [base64.b64encode(f"me:{word}".encode()).decode() for word in ("one", "two")]
    assert seen == [f"Basic {pair}" for pair in pairs]
    with pytest.raises(MlflowError):
        registry(tmp_path, answer).look_up(CHAMPION, 1e9)
    assert seen[2:] == ["Bearer from-the-environment"]


def test_a_refusal_says_how_to_mend_it_without_the_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    client = registry(tmp_path, lambda _: said(b"", 401), secret_file=secret)
    for content, why in ((b"very-secret", "refuses the controller"), (b"\n", "holds no secret")):
        secret.write_bytes(content)
        with pytest.raises(MlflowError, match=why) as refused:
            client.look_up(CHAMPION, 1e9)
        assert "very-secret" not in f"{refused.value} {refused.value.hint}"
    secret.unlink()
    with pytest.raises(MlflowError, match=r"cannot read .*secret: No such file"):
        client.look_up(CHAMPION, 1e9)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said(b"<html>"), "does not answer as MLflow does"),
        (said(b'{"model_version": {}}'), "does not answer as MLflow does"),
        (said(b"[" * 90_000), "does not answer as MLflow does"),
        (said(json.dumps({"message": "busy\x1b[2J"}).encode(), 503), r"answered 503: busy \[2J"),
        (said(b"", **{"content-encoding": "gzip"}), "packs"),
    ],
)
def test_answers_of_other_servers_are_refused(
    tmp_path: Path, answer: httpx.Response, why: str
) -> None:
    with pytest.raises(MlflowError, match=why):
        registry(tmp_path, lambda _: answer).look_up(CHAMPION, 1e9)


class Dripping(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x"


def test_an_answer_that_drips_is_left_at_the_deadline(tmp_path: Path) -> None:
    client = registry(tmp_path, lambda _: httpx.Response(200, stream=Dripping()))
    deadline = client.deadline()
    # Chunks of 64 KiB gather what drips: each is a second of this clock.
    with pytest.raises(MlflowError, match="did not answer within 5 s"):
        client.look_up(CHAMPION, deadline)


def test_no_connection_is_an_error_with_a_hint(tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(MlflowError, match="cannot be asked: refused") as refused:
        registry(tmp_path, refuse).look_up(CHAMPION, 1e9)
    assert "tracking_uri" in refused.value.hint


# Following.


def test_the_first_look_publishes_and_rolls_out_and_the_next_does_nothing(
    following: Any, controller: Any, mlflow: FakeMlflow, tiny_model: Any, rolled_out: Any
) -> None:
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    following.work()
    assert rolled_out() == [("1", "running")]
    asked = len(mlflow.asked)
    following.work()
    assert len(mlflow.asked) == asked  # not due
    controller.clock.advance(300)
    following.work()
    assert mlflow.asked[asked:] == ["alias"]
    assert rolled_out() == [("1", "running")]


def test_a_move_queues_a_rollout_and_a_move_back_another(
    following: Any,
    controller: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    rolled_out: Any,
    happened: Any,
) -> None:
    for number in ("1", "2", "1"):
        mlflow.log(number, tiny_model(int(number)))
        mlflow.aliases["champion"] = number
        following.work()
        controller.clock.advance(300)
    assert rolled_out() == [("1", "running"), ("2", "queued"), ("1", "queued")]
    moves = [event.data for event in happened("mlflow.alias_moved")]
    assert [(one["before"], one["version"], one["rollout"]) for one in moves] == [
        (None, "1", 1),
        ("1", "2", 2),
        ("2", "1", 3),
    ]


def test_a_controller_that_starts_again_goes_on_from_there(
    following: Any,
    controller: Any,
    config: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    rolled_out: Any,
) -> None:
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    following.work()
    services = controller.parts.services
    parts = composition.build(
        config,
        services.database,
        controller.broker,
        controller.clock,
        services.artifacts,
        LocalExecutor(),
    )
    parts.services.mlflow.open()
    parts.services.mlflow.following.work()
    assert rolled_out() == [("1", "running")]


def test_a_rollout_and_the_move_that_it_is_of_are_written_together(
    following: Any,
    controller: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    rolled_out: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a kill between the two would show: there is no such moment."""
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    add = events.add

    def dies(session: Any, at: float, kind: str, *rest: Any) -> None:
        if kind == mlflow_following.MOVED:
            raise OSError("killed")
        add(session, at, kind, *rest)

    monkeypatch.setattr(mlflow_following.events, "add", dies)
    following.work()
    assert rolled_out() == []
    monkeypatch.undo()
    controller.clock.advance(300)
    following.work()
    assert rolled_out() == [("1", "running")]


def test_without_rollout_it_is_published_only(
    follow: dict[str, Any], mlflow: FakeMlflow, tiny_model: Any, request: pytest.FixtureRequest
) -> None:
    follow["lab"]["rollout"] = False
    cli, following = request.getfixturevalue("cli"), request.getfixturevalue("following")
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    following.work()
    assert cli.json("rollout", "list")["items"] == []
    assert cli.json("model", "show", "watch@1")["version"] == "1"
    assert cli.json("mlflow", "status")["items"][0]["published"] == "watch@1"


def test_a_failure_is_said_once_and_tried_again_later_and_later(
    following: Any,
    controller: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    happened: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "edgeloop_controller")
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    mlflow.fails = 503
    for _ in range(100):
        following.work()
        controller.clock.advance(1)
    assert len(mlflow.asked) == 4  # after 0, 10, 30 and 70 s
    assert [event.data["error"][:60] for event in happened("mlflow.")] == [
        f"the MLflow server http://127.0.0.1:{mlflow.port} answered 503: out of "[:60]
    ]
    assert len(caplog.records) == 1
    mlflow.fails, mlflow.status = None, "PENDING_REGISTRATION"
    controller.clock.advance(100)
    following.work()
    mlflow.status = "READY"
    controller.clock.advance(300)
    following.work()
    assert [event.kind for event in happened("mlflow.")] == [
        "mlflow.failed",
        "mlflow.failed",
        "mlflow.alias_moved",
        "mlflow.recovered",
    ]


def test_a_failure_that_was_said_is_not_said_again_after_a_restart(
    following: Any, controller: Any, mlflow: FakeMlflow, happened: Any
) -> None:
    following.work()
    following.open()
    following.work()
    assert len(happened("mlflow.failed")) == 1
    assert "alias not found" in happened("mlflow.failed")[0].data["error"]


def test_status_says_what_is_followed_and_what_is_wrong(
    cli: Any, following: Any, mlflow: FakeMlflow, tiny_model: Any
) -> None:
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    following.work()
    shown = cli.table("mlflow", "status")
    assert "models:/watch@champion" in shown
    assert "watch@1" in shown
    assert "none came since the controller started" in shown
    del mlflow.aliases["champion"]
    following.take_hint(mlflow_following.mlflow_webhook.Moved("watch", "champion"), HINT)
    following.work()
    one = cli.json("mlflow", "status")["items"][0]
    assert (one["published"], one["rollout_id"], one["failures"]) == ("watch@1", 1, 1)
    assert "MLflow has no models:/watch@champion" in one["error"]
    assert "try 1" in cli.table("mlflow", "status")


HINT = mlflow_following.Hint("some-delivery", "192.0.2.7")


# The webhook.


def moved(alias: str = "champion") -> bytes:
    data = {"name": "watch", "alias": alias, "version": "1"}
    return json.dumps({"entity": "model_version_alias", "action": "created", "data": data}).encode()


def signed(body: bytes, now: float, delivery: str = "7129586d-297d") -> dict[str, str]:
    content = f"{delivery}.{int(now)}.".encode() + body
    digest = hmac.digest(SECRET.encode(), content, hashlib.sha256)
    return {
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": str(int(now)),
    }


@pytest.fixture
def post(url: str) -> Callable[..., httpx.Response]:
    def send(body: bytes, headers: dict[str, str]) -> httpx.Response:
        return httpx.post(
            f"{url}/v1/mlflow/webhook", content=body, headers=headers, trust_env=False
        )

    return send


def test_a_webhook_makes_the_follow_look_at_once(
    post: Any,
    cli: Any,
    following: Any,
    controller: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    rolled_out: Any,
) -> None:
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    following.work()
    mlflow.log("2", tiny_model(2))
    mlflow.aliases["champion"] = "2"
    following.work()
    assert rolled_out() == [("1", "running")]
    headers = signed(moved(), controller.clock.wall())
    taken = post(moved(), headers)
    assert (taken.status_code, taken.json()["follows"]) == (202, ["lab"])
    following.work()
    assert rolled_out() == [("1", "running"), ("2", "queued")]
    asked = len(mlflow.asked)
    following.work()
    assert len(mlflow.asked) == asked  # one webhook, one look
    again = post(moved(), headers).json()
    assert (again["seen_before"], again["follows"]) == (True, [])
    entries = [
        (one["method"], one["created"], one["address"], one["authenticated"])
        for one in cli.json("audit", "--actor", "mlflow")["items"]
        if one["essence"]["delivery"] == "7129586d-297d"
    ]
    assert entries == [
        ("POST", "", "127.0.0.1", True),
        ("FOLLOW", "version:watch@2", "127.0.0.1", True),
        ("FOLLOW", "rollout:2", "127.0.0.1", True),
        ("POST", "", "127.0.0.1", True),
    ]


def test_a_forged_an_old_and_a_large_webhook_are_refused(
    post: Any, cli: Any, following: Any, controller: Any, mlflow: FakeMlflow
) -> None:
    now = controller.clock.wall()
    refusals = (
        (moved(), {}, 401, "bad_signature"),
        (moved("other"), signed(moved(), now), 401, "bad_signature"),
        (moved(), signed(moved(), now - 301), 401, "bad_signature"),
        (b"x" * 70_000, signed(b"x" * 70_000, now), 413, "too_large"),
    )
    for body, headers, status, code in refusals:
        answer = post(body, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert not any(one["authenticated"] for one in cli.json("audit")["items"])
    assert cli.json("mlflow", "status")["webhook_at"] is None
    assert post(moved("other"), signed(moved("other"), now)).json()["follows"] == []


def test_a_webhook_that_comes_during_a_look_is_looked_at_after_it(
    following: Any,
    controller: Any,
    mlflow: FakeMlflow,
    tiny_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow.log("1", tiny_model())
    mlflow.aliases["champion"] = "1"
    look = following._look

    def interrupted(*arguments: Any) -> None:
        look(*arguments)
        monkeypatch.undo()
        following.take_hint(mlflow_following.mlflow_webhook.Moved("watch", "champion"), HINT)

    monkeypatch.setattr(following, "_look", interrupted)
    following.work()
    asked = len(mlflow.asked)
    following.work()
    assert len(mlflow.asked) == asked + 1


# Configuration.


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('tracking_uri = "http://me:secret@mlflow"', "tracking_uri"),
        ('tracking_uri = "mlflow:5000"', "tracking_uri"),
        ('tracking_uri = "http://mlflow"\nusername = "me"', "set secret_file"),
        ('tracking_uri = "http://mlflow"\n[mlflow.follow.a]\nmodel = "m/n"\nalias = "c"', "model"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, lines: str, why: str) -> None:
    path = tmp_path / "controller.toml"
    path.write_text(f"[mlflow]\n{lines}\n")
    with pytest.raises(ConfigError, match=why):
        load_config(ControllerConfig, path, {})


def test_a_rollout_that_could_never_start_is_refused_at_the_start(
    follow: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    follow["lab"]["waves"] = ["50%", "20%"]
    services = request.getfixturevalue("controller").parts.services
    with pytest.raises(StartError, match=r"\[mlflow\.follow\.lab\]"):
        services.mlflow.open()


@pytest.mark.parametrize("content", ["", "short\n", "\n".join(["0123456789abcdef"] * 5)])
def test_a_webhooks_secret_that_cannot_be_used_is_refused_at_the_start(
    controller: Any, tmp_path: Path, content: str
) -> None:
    (tmp_path / "hook.secret").write_text(content)
    with pytest.raises(StartError, match="webhook_secret_file"):
        controller.parts.services.mlflow.open()
