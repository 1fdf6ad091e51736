"""Who asks: tokens, roles, two persons, other sites' pages, limits."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

TokenApi = Callable[..., TestClient]


@pytest.fixture
def access() -> dict[str, Any]:
    return {"require": True}


@pytest.fixture
def config(config: ControllerConfig, access: dict[str, Any]) -> ControllerConfig:
    document = config.model_dump() | {"access": access}
    return ControllerConfig.model_validate(document)


@pytest.fixture
def make_api(controller: Any) -> Iterator[TokenApi]:
    """A client with a new token of these roles; none for no role."""
    app = create_app(controller.parts.services)
    opened: list[TestClient] = []

    def make(name: str = "", *roles: str, base_url: str = "http://fleet.example/v1") -> TestClient:
        headers = {}
        if roles:
            _, secret = controller.parts.services.people.create(name, roles, 86400.0, "test")
            headers["authorization"] = f"Bearer {secret}"
        client = TestClient(app, base_url=base_url, headers=headers, raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__()


@pytest.fixture
def published(controller: Any, make_device: Any, make_package: Any) -> Any:
    version = controller.keep(make_package("1"))
    controller.takes(make_device("d1", labels={"site": "lab"}).hello())
    return version


def start(api: TestClient, **changes: Any) -> Any:
    body = {"name": "tiny", "version": "1", "selector": "all", "waves": ["100%"]} | changes
    return api.post("/rollouts", json=body)


def offered(controller: Any) -> bool:
    return any(desired.slots for desired in controller.broker.desired("d1"))


def error_of(response: Any, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json()["error"]


def last_entry(controller: Any) -> Any:
    with TestClient(create_app(controller.parts.services), base_url="http://localhost/v1") as api:
        _, secret = controller.parts.services.people.create("reads", ["viewer"], None, "test")
        api.headers["authorization"] = f"Bearer {secret}"
        items = api.get("/audit").json()["items"]
        controller.parts.services.people.revoke("reads")
    return items[-1]


def test_nobody_comes_in_without_a_token(make_api: TokenApi, controller: Any) -> None:
    api = make_api()
    error = error_of(api.get("/devices"), 401)
    assert error["code"] == "unauthenticated"
    assert "EDGELOOP_TOKEN" in error["hint"]
    refused = api.post("/rollouts/1/abort", headers={"X-Edgeloop-Actor": "ann"})
    assert refused.headers["www-authenticate"].startswith("Bearer")
    entry = last_entry(controller)
    assert (entry["outcome"], entry["status"]) == ("refused", 401)
    assert (entry["actor"], entry["authenticated"]) == ("ann", False)


def test_open_doors_stay_open(make_api: TokenApi, published: Any, controller: Any) -> None:
    api = make_api()
    assert api.get("/health").status_code == 200
    assert api.get(f"/artifacts/{published.manifest_digest}").status_code == 200
    assert api.get("/artifacts/..%2F..%2Fdb.sqlite").status_code in (401, 404)


@pytest.mark.parametrize(
    "header",
    ["Bearer edgeloop_wrong", "Bearer ", "Basic YTpi", "edgeloop_x", "Bearer a.b.c", "Bearer x y"],
)
def test_a_wrong_token_is_refused(make_api: TokenApi, header: str) -> None:
    answer = make_api().get("/devices", headers={"authorization": header})
    error_of(answer, 401)


def test_an_endless_token_is_refused_unread(make_api: TokenApi) -> None:
    error_of(make_api().get("/devices", headers={"authorization": "Bearer " + "x" * 9000}), 401)


def test_a_token_says_who_and_what(make_api: TokenApi, controller: Any, published: Any) -> None:
    operator = make_api("ann", "operator")
    assert operator.get("/whoami").json() == {
        "name": "ann",
        "authenticated": True,
        "roles": ["operator"],
    }
    answer = operator.post(
        "/rollouts",
        json={"name": "tiny", "version": "1", "selector": "all", "waves": ["1"]},
        headers={"X-Edgeloop-Actor": "deploy-bot"},
    )
    assert answer.json()["started_by"] == "ann"
    entry = last_entry(controller)
    assert (entry["actor"], entry["authenticated"]) == ("ann", True)
    assert entry["essence"]["said_to_be"] == "deploy-bot"


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", set()),
        ("operator", {"start", "label", "run"}),
        ("publisher", {"publish", "policy"}),
        ("approver", {"approve"}),
        ("admin", {"start", "label", "run", "publish", "policy", "approve", "token"}),
    ],
)
def test_roles(make_api: TokenApi, published: Any, role: str, allowed: set[str]) -> None:
    api = make_api("x", role)
    asked = {
        "start": lambda: start(api),
        "approve": lambda: api.post("/rollouts/1/approve", json={"by": "x"}),
        "label": lambda: api.patch("/devices/d1/labels", json={"site": "north"}),
        "run": lambda: api.post("/retraining/policies/p/runs"),
        "publish": lambda: api.post("/models/a/versions/1", files={"model": ("m", b"m")}),
        "policy": lambda: api.delete("/retraining/policies/p"),
        "token": lambda: api.get("/tokens"),
    }
    assert api.get("/devices").status_code == 200
    assert {name for name, ask in asked.items() if ask().status_code != 403} == allowed
    if role == "viewer":
        error = error_of(start(api), 403)
        assert "x (viewer) may not operate" in error["message"]
        assert "operator, admin" in error["hint"]


def test_a_token_ends_and_is_revoked(make_api: TokenApi, controller: Any) -> None:
    admin, ann = make_api("root", "admin"), make_api("ann", "viewer")
    assert ann.get("/devices").status_code == 200
    assert admin.delete("/tokens/ann").json()["items"][0]["state"] == "revoked"
    assert "is revoked" in error_of(ann.get("/devices"), 401)["message"]
    error_of(admin.delete("/tokens/ann"), 404)
    controller.clock.advance(86401.0)
    assert "has ended" in error_of(admin.get("/devices"), 401)["message"]


def test_tokens_over_the_api(make_api: TokenApi, database: Database, controller: Any) -> None:
    admin = make_api("root", "admin")
    made = admin.post("/tokens", json={"name": "ci", "roles": ["operator", "publisher"]}).json()
    assert made["token"]["created_by"] == "root"
    assert re.fullmatch(r"edgeloop_[\w-]{43}", made["secret"])
    ci = make_api()
    ci.headers["authorization"] = f"Bearer {made['secret']}"
    assert ci.get("/whoami").json()["roles"] == ["operator", "publisher"]
    assert (
        "valid token 'ci'"
        in error_of(admin.post("/tokens", json={"name": "ci", "roles": ["viewer"]}), 409)["message"]
    )
    error_of(admin.post("/tokens", json={"name": "a:b", "roles": ["viewer"]}), 422)
    error_of(admin.post("/tokens", json={"name": "b", "roles": ["king"]}), 422)
    error_of(admin.post("/tokens", json={"name": "b", "roles": []}), 422)
    listed = admin.get("/tokens")
    assert [one["name"] for one in listed.json()["items"]] == ["ci", "root"]
    assert made["secret"] not in listed.text
    assert made["secret"] not in admin.get("/audit").text
    assert made["secret"] not in admin.get("/events").text
    with database.engine.connect() as connection:
        dump = list(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    assert not [line for line in dump if made["secret"].removeprefix("edgeloop_") in line]
    tokens_entry = [e for e in admin.get("/audit").json()["items"] if e["path"] == "/v1/tokens"]
    assert tokens_entry[0]["essence"]["name"] == "ci"


class TestTwoPersons:
    @pytest.fixture
    def access(self) -> dict[str, Any]:
        return {"require": True, "two_person_rollouts": True}

    def test_one_starts_another_approves(
        self, make_api: TokenApi, controller: Any, published: Any
    ) -> None:
        ann = make_api("ann", "operator", "approver")
        bob = make_api("bob", "approver")
        rollout = start(ann).json()
        assert rollout["terms"]["schedule"]["approve"] == [1]
        controller.parts.reconciler.tick()
        assert not offered(controller)
        assert (
            "ann started rollout 1"
            in error_of(ann.post("/rollouts/1/approve", json={"by": "bob"}), 403)["message"]
        )
        controller.parts.reconciler.tick()
        assert not offered(controller)
        approved = bob.post("/rollouts/1/approve", json={})
        assert [one["by"] for one in approved.json()["approvals"]] == ["bob"]
        controller.parts.reconciler.tick()
        assert offered(controller)

    def test_stopping_takes_one(self, make_api: TokenApi, published: Any) -> None:
        ann = make_api("ann", "operator")
        start(ann)
        assert ann.post("/rollouts/1/abort").json()["status"] == "aborted"

    def test_a_machines_rollout_waits_for_anybody(
        self, make_api: TokenApi, controller: Any, published: Any
    ) -> None:
        controller.parts.services.rollouts.start(
            RolloutRequest("tiny", "1", "all", ("100%",), RolloutTerms())
        )
        controller.parts.reconciler.tick()
        assert not offered(controller)
        make_api("bob", "approver").post("/rollouts/1/approve", json={})
        controller.parts.reconciler.tick()
        assert offered(controller)

    def test_it_needs_to_know_who_asks(self, tmp_path: Path) -> None:
        path = tmp_path / "controller.toml"
        path.write_text("[access]\ntwo_person_rollouts = true\n")
        with pytest.raises(ConfigError, match="set \\[access\\] require = true"):
            load_config(ControllerConfig, path, {})


class TestOnLoopback:
    """Where nobody has to say who they are."""

    @pytest.fixture
    def access(self) -> dict[str, Any]:
        return {"hosts": ["edge.lan"]}

    @pytest.mark.parametrize(
        "host", ["localhost", "127.0.0.1", "[::1]", "127.0.0.1:8080", "edge.lan"]
    )
    def test_loopbacks_names(self, make_api: TokenApi, host: str) -> None:
        assert make_api(base_url=f"http://{host}/v1").get("/devices").status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "", "[::1", "10.0.0.4"]
    )
    def test_another_name_is_a_rebound_one(self, make_api: TokenApi, host: str) -> None:
        api = make_api(base_url="http://localhost/v1")
        error = error_of(api.get("/devices", headers={"host": host}), 403)
        assert "[access] hosts" in error["hint"]

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil"])
    def test_a_page_of_another_site_publishes_nothing(
        self, make_api: TokenApi, controller: Any, origin: str
    ) -> None:
        """A multipart form is sent without a preflight: CSRF."""
        api = make_api(base_url="http://localhost/v1")
        sent = api.post(
            "/models/a/versions/1", files={"model": ("m", b"m")}, headers={"origin": origin}
        )
        assert "may not ask" in error_of(sent, 403)["message"]
        entries = api.get("/audit").json()["items"]
        assert [(e["outcome"], e["status"]) for e in entries] == [("refused", 403)]

    def test_its_own_pages_may(self, make_api: TokenApi) -> None:
        api = make_api(base_url="http://localhost:8080/v1")
        own = api.get("/devices", headers={"origin": "http://localhost:8080"})
        assert own.status_code == 200

    def test_a_token_is_checked_all_the_same(self, make_api: TokenApi) -> None:
        api = make_api(base_url="http://localhost/v1")
        error_of(api.get("/devices", headers={"authorization": "Bearer edgeloop_x"}), 401)


@pytest.mark.parametrize(
    ("host", "require", "expected"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("10.0.0.4", None, True),
        ("fleet.example", None, True),
        ("0.0.0.0", False, False),
        ("127.0.0.1", True, True),
    ],
)
def test_it_is_asked_for_wherever_others_reach_it(
    host: str, require: bool | None, expected: bool
) -> None:
    config = ControllerConfig.model_validate(
        {"http": {"host": host, "plain": True}, "access": {"require": require}}
    )
    assert config.requires_token is expected


class TestLimits:
    @pytest.fixture
    def config(self, config: ControllerConfig) -> ControllerConfig:
        limits = {"requests_per_s": 2, "requests_burst": 3, "body_silence_s": 0.05}
        return ControllerConfig.model_validate(config.model_dump() | {"limits": limits})

    def test_who_asks_too_often_waits(
        self, make_api: TokenApi, controller: Any, published: Any
    ) -> None:
        api = make_api()
        statuses = [api.get("/health").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = api.post("/rollouts/1/abort")
        assert refused.headers["retry-after"] == "1"
        assert error_of(refused, 429)["code"] == "too_many_requests"
        assert api.get(f"/artifacts/{published.manifest_digest}").status_code == 200
        controller.clock.advance(1.0)
        assert api.get("/health").status_code == 200

    def test_a_body_that_never_comes_ends(self, make_api: TokenApi, controller: Any) -> None:
        app = create_app(controller.parts.services)
        sent: list[Any] = []

        async def never() -> Any:
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        _, secret = controller.parts.services.people.create("a", ["operator"], None, "test")
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/rollouts",
            "raw_path": b"/v1/rollouts",
            "query_string": b"",
            "headers": [
                (b"authorization", f"Bearer {secret}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", b"10"),
            ],
            "client": ("10.0.0.9", 1),
            "server": ("fleet", 80),
            "scheme": "http",
            "http_version": "1.1",
            "app": app,
        }
        asyncio.run(app(scope, never, send))
        assert sent[0]["status"] == 408
        assert "body" in json.loads(sent[1]["body"])["error"]["message"]
