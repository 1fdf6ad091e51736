"""The audit log: with each change, of each refusal, and never rewritten."""

import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.schema import CreateTable

from edgeloop_controller.api import audit as recording
from edgeloop_controller.api import request_essence
from edgeloop_controller.api.app import create_app
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.store import audit, rollouts
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import AuditEntry, table_of

MIGRATION = importlib.import_module("edgeloop_controller.store.migrations.versions.0007_the_record")


@pytest.fixture
def api(controller: Any) -> Iterator[TestClient]:
    app = create_app(controller.parts.services)
    with TestClient(app, base_url="http://localhost/v1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def published(controller: Any, make_device: Any, make_package: Any) -> Any:
    version = controller.keep(make_package("1"))
    controller.takes(make_device("d1", labels={"site": "lab"}).hello())
    return version


def start(api: TestClient, **changes: Any) -> Any:
    body = {"name": "tiny", "version": "1", "selector": "all", "waves": ["1"]} | changes
    return api.post("/rollouts", json=body)


def entries(api: TestClient, **query: Any) -> list[Any]:
    items: list[Any] = api.get("/audit", params=query).json()["items"]
    return items


def test_who_changed_what_from_where(api: TestClient, controller: Any, published: Any) -> None:
    started = start(api)
    assert started.status_code == 201, started.text
    headers = {"X-Edgeloop-Actor": "ann", "X-Forwarded-For": "10.9.8.7"}
    api.post("/rollouts/1/abort", json={"reason": "lunch"}, headers=headers)
    first, second = entries(api)
    assert first["created"] == "rollout:1"
    assert (first["actor"], first["authenticated"]) == ("local", False)
    assert first["address"] == "testclient"
    assert first["at"] == controller.clock.wall()
    assert first["essence"]["name"] == "tiny"
    assert (first["outcome"], first["status"]) == ("done", None)
    assert second["actor"] == "ann"
    assert second["forwarded_for"] == "10.9.8.7"
    assert (second["method"], second["path"]) == ("POST", "/v1/rollouts/1/abort")
    assert second["subject"] == "rollout:1"
    assert second["essence"] == {"reason": "lunch"}
    assert [e["id"] for e in entries(api, subject="rollout:1")] == [1, 2]
    assert [e["id"] for e in entries(api, actor="ann")] == [2]
    assert [e["id"] for e in entries(api, since=controller.clock.wall() + 1)] == []
    assert [e["id"] for e in entries(api, after=1)] == [2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("POST", "/rollouts/9/pause", None, 404, "not_found: no rollout 9"),
        ("POST", "/rollouts", {"name": "tiny"}, 422, "refused_input: version: Field required"),
        ("PATCH", "/devices/d1/labels", {"labels": {"device": "x"}}, 422, "built in"),
        ("DELETE", "/devices/d1", None, 405, "method_not_allowed"),
        ("POST", "/nothing", "x" * 2_000_000, 413, "too_large"),
        ("PUT", "/no/such/way", None, 404, "not_found"),
    ],
)
def test_what_is_refused_is_recorded(
    api: TestClient, published: Any, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    assert api.request(method, path, json=body).status_code == status
    (entry,) = entries(api)
    assert (entry["outcome"], entry["status"]) == ("refused", status)
    assert detail in entry["detail"]
    assert entry["created"] == ""


def test_what_changes_nothing_is_recorded_before_it_is_answered(
    api: TestClient, controller: Any, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing, package = controller.parts.services.publishing, make_package("1")

    def publish_files(model: bytes, *_: Any) -> Any:
        return publishing.publish(model, package.manifest)

    monkeypatch.setattr(publishing, "publish_files", publish_files)
    files = {"model": ("model.onnx", package.model), "manifest": ("m.toml", b"")}
    for status in (201, 200):
        assert api.post("/models/tiny/versions/1", files=files).status_code == status
    first, again = entries(api)
    assert first["subject"] == again["subject"] == "version:tiny@1"
    assert first["essence"]["content_type"] == "multipart/form-data"
    assert int(first["essence"]["bytes"]) > 100
    assert (first["outcome"], first["status"]) == ("done", None)
    assert (again["outcome"], again["status"]) == ("done", 200)


def test_reading_is_not_recorded(api: TestClient, published: Any) -> None:
    assert api.get("/devices").status_code == 200
    assert api.get("/devices/d9").status_code == 404
    assert entries(api) == []


def test_a_change_and_its_entry_are_there_together_or_not_at_all(
    api: TestClient, controller: Any, published: Any
) -> None:
    database = controller.parts.services.database
    with database.engine.connect() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER broken BEFORE INSERT ON audit_log "
                "BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        )
        connection.commit()
    assert start(api).status_code == 500
    asked = api.post("/retraining/policies/none/runs")
    assert asked.status_code == 503
    assert "audit log" in asked.json()["error"]["message"]
    with database.reading() as session:
        assert rollouts.every(session, 10) == []


def test_what_was_rolled_back_names_nothing_made(
    api: TestClient, controller: Any, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeloop_controller.services import rollouts as starting

    def fail(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    monkeypatch.setattr(starting.events, "add", fail)
    assert start(api).status_code == 503
    (entry,) = entries(api)
    assert (entry["outcome"], entry["status"], entry["created"]) == ("failed", 503, "")


def test_a_failure_after_the_change_is_an_entry_of_its_own(
    api: TestClient, controller: Any, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeloop_controller.api.routes import rollouts as route

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(route, "show", fail)
    assert start(api).status_code == 500
    done, failed = entries(api)
    assert (done["outcome"], done["created"]) == ("done", "rollout:1")
    assert (failed["outcome"], failed["request"]) == ("failed", done["request"])
    assert "nothing to divide by" in failed["detail"]


def test_the_controllers_own_writing_has_no_entry(
    api: TestClient, controller: Any, published: Any
) -> None:
    start(api)
    controller.parts.reconciler.tick()
    assert len(entries(api)) == 1


@pytest.mark.parametrize("actor", ["", "ä", "x" * 129, "a\x07b"])
def test_an_actor_that_is_no_name_is_refused(api: TestClient, published: Any, actor: str) -> None:
    headers = {b"x-edgeloop-actor": actor.encode()}
    refused = api.post("/rollouts/1/pause", headers=headers)  # type: ignore[arg-type]
    assert refused.status_code == 422
    assert "EDGELOOP_ACTOR" in refused.json()["error"]["hint"]
    assert entries(api)[0]["outcome"] == "refused"


def test_who_is_refused_cannot_fill_the_disk(
    api: TestClient, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "REFUSALS_A_MINUTE_MAX", 3)
    for _ in range(10):
        assert api.post("/rollouts/9/pause").status_code == 404
    assert len(entries(api)) == 3
    start(api)
    assert entries(api)[-1]["passed_over"] == 7
    start(api, version="2")
    assert len(entries(api)) == 4


def test_the_essence_is_short_and_keeps_no_secret(
    api: TestClient, controller: Any, published: Any
) -> None:
    body = {
        "name": "x" * 1000,
        "many": list(range(100)),
        "Secret": "hush",
        "deep": {"token": "hush", "half": "\ud800"},
    }
    api.post("/rollouts", content=json.dumps(body))
    essence = entries(api)[0]["essence"]
    assert len(essence["name"]) == request_essence.VALUE_MAX_CHARS
    assert essence["many"][-1] == "… 80 more"
    assert essence["Secret"] == essence["deep"]["token"] == "(not recorded)"
    api.post("/rollouts", json={f"key {n}": "y" * 150 for n in range(30)})
    assert entries(api)[1]["essence"]["keys"][0] == "key 0"
    api.post("/rollouts", content=b"{\xff", headers={"content-type": "application/json"})
    assert "not_json" in entries(api)[2]["essence"]


def _one_entry(database: Database) -> None:
    request = audit.Request("a" * 16, 1.0, "ann", False, "::1", "", "POST", "/v1/x", "x")
    with database.writing() as session:
        audit.add(session, request, "done")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'bob'",
        "DELETE FROM audit_log",
        "REPLACE INTO audit_log SELECT * FROM audit_log",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log WHERE id = 1",
    ],
)
def test_what_is_recorded_stays(database: Database, statement: str) -> None:
    _one_entry(database)
    with database.engine.connect() as connection, pytest.raises(DatabaseError, match="append-only"):
        connection.execute(text(statement))
    _one_entry(database)
    with database.reading() as session:
        assert [e.actor for e in audit.after(session, 0, audit.Filter(), 9)] == ["ann", "ann"]


@pytest.fixture
def psql(tmp_path: Path) -> Iterator[Any]:
    """Runs SQL on a PostgreSQL of its own; returns what it says."""
    binaries = Path("/usr/lib/postgresql")
    found = sorted(binaries.glob("*/bin/initdb")) if binaries.is_dir() else []
    if (
        not found
        or shutil.which("psql") is None
        or (os.geteuid() == 0 and not shutil.which("runuser"))
    ):
        pytest.skip("PostgreSQL is not installed")
    bin_dir, home = found[-1].parent, tmp_path / "pg"
    home.mkdir()
    as_user = []
    if os.geteuid() == 0:  # it refuses to run as root
        for directory in (tmp_path, *tmp_path.parents):
            if directory != Path("/tmp") and "pytest" in str(directory):
                directory.chmod(0o755)
        shutil.chown(home, "nobody")
        as_user = ["runuser", "-u", "nobody", "--"]
    where = ["-D", str(home / "data")]
    subprocess.run(
        [*as_user, bin_dir / "initdb", *where, "-A", "trust", "-U", "edgeloop", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=home,
    )
    options = f"-k {home} -c listen_addresses='' -c fsync=off"
    pg_ctl = [*as_user, bin_dir / "pg_ctl", *where]
    subprocess.run(
        [*pg_ctl, "-w", "-o", options, "-l", home / "log", "start"],
        check=True,
        capture_output=True,
        cwd=home,
    )

    def run(sql: str) -> Any:
        command = ["psql", "-X", "-q", "-t", "-A", "-h", str(home), "-U", "edgeloop", "postgres"]
        return subprocess.run([*command, "-c", sql], capture_output=True, text=True)

    yield run
    subprocess.run([*pg_ctl, "-m", "immediate", "stop"], capture_output=True, cwd=home)


def test_what_is_recorded_stays_in_postgresql(psql: Any) -> None:
    table = CreateTable(table_of(AuditEntry)).compile(dialect=postgresql.dialect())
    made = [psql(statement) for statement in (str(table), *MIGRATION.POSTGRESQL_TRIGGERS)]
    assert [run.stderr for run in made] == [""] * len(made)
    columns = "at, request, actor, authenticated, address, forwarded_for, method, path, subject"
    row = "1, 'a', 'ann', false, '::1', '', 'POST', '/v1/x', 'x', '{}', '', 'done', '', 0"
    insert = f"INSERT INTO audit_log ({columns}, essence, created, outcome, detail, passed_over) "
    assert psql(f"{insert} VALUES ({row})").returncode == 0
    upsert = f"{insert} VALUES ({row}) ON CONFLICT (id) DO UPDATE SET actor = 'bob'"
    same = upsert.replace("(at,", "(id, at,").replace("VALUES (1,", "VALUES (1, 1,")
    for statement in (
        "UPDATE audit_log SET actor = 'bob'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        same,
    ):
        assert "append-only" in psql(statement).stderr, statement
    assert psql("SELECT id, actor FROM audit_log").stdout.split() == ["1|ann"]


def test_the_command(cli: Any, published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such entry" in cli.table("audit")
    monkeypatch.setenv("EDGELOOP_ACTOR", "ann@example.com")
    cli.run("rollout", "start", "tiny@1", "--to", "all")
    cli.refused(ExitCode.CONFLICT, "rollout", "resume", "1")
    monkeypatch.delenv("EDGELOOP_ACTOR")
    cli.run("device", "label", "d1", "site=[bold]")
    text = cli.table("audit")
    assert "by ann@example.com? from 127.0.0.1" in " ".join(text.split())
    assert "refused" in text
    assert "nobody checked it" in text
    assert "[bold]" in text
    assert [e["outcome"] for e in cli.json("audit", "--subject", "rollout:1")["items"]] == [
        "done",
        "refused",
    ]
    assert len(cli.json("audit", "--actor", "local", "--since", "9000d")["items"]) == 1
    cli.refused(ExitCode.USAGE, "audit", "--since", "yesterday")
    monkeypatch.setenv("EDGELOOP_ACTOR", "änn")
    cli.refused(ExitCode.USAGE, "rollout", "pause", "1")
