"""The audit log's chain: what is changed in the database shows; the commands around it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from edgeloop.client import Client
from edgeloop.documents.audit import CHAINED, chain_of
from edgeloop_controller.api.app import create_app
from edgeloop_controller.api.request_essence import Body
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.control.audit_chain import ChainFound, verify
from edgeloop_controller.store.engine import Database


@pytest.fixture
def client(controller: Any) -> Iterator[Client]:
    app = create_app(controller.parts.services)
    with Client("http://localhost", transport=TestClient(app)._transport) as client:
        for number in range(5):
            with pytest.raises(Exception, match="no rollout"):
                client.post(f"/rollouts/{number}/abort", {"reason": "ü" * number})
        yield client


def tamper(database: Database, *statements: str) -> None:
    """As who owns the file can: without the triggers that hold everybody else."""
    with database.engine.connect() as connection:
        names = "audit_log_no_update", "audit_log_no_delete", "audit_log_no_replace"
        for statement in (*(f"DROP TRIGGER {name}" for name in names), *statements):
            connection.execute(text(statement))
        connection.commit()


def test_a_whole_chain(client: Client) -> None:
    found = verify(client, None)
    assert (found.verified, found.unchained, found.problem) == (5, 0, "")
    number, link = found.head.split(":")
    assert verify(client, (int(number), link)) == found
    client_says = verify(client, (3, "0" * 64))
    assert "is not in the chain any more" in client_says.problem


@pytest.mark.parametrize(
    ("statement", "first_bad"),
    [
        ("UPDATE audit_log SET actor = 'bob' WHERE id = 3", 3),
        ("UPDATE audit_log SET essence = '{}' WHERE id = 2", 2),
        ("UPDATE audit_log SET at = at + 1 WHERE id = 1", 1),
        ("UPDATE audit_log SET outcome = 'done', status = NULL WHERE id = 5", 5),
        ("UPDATE audit_log SET chain = NULL WHERE id = 4", 4),
        ("DELETE FROM audit_log WHERE id = 2", 3),
        ("DELETE FROM audit_log WHERE id = 1", 2),
        ("UPDATE audit_log SET id = 9 WHERE id = 2", 3),
    ],
)
def test_what_was_changed_shows(
    client: Client, database: Database, statement: str, first_bad: int
) -> None:
    tamper(database, statement)
    assert f"entry {first_bad} does not follow" in verify(client, None).problem


def test_every_field_is_in_the_chain(client: Client) -> None:
    entry = client.get("/audit", after=0, limit=1)["items"][0]
    assert set(entry) == {*CHAINED, "id", "chain"}
    for name in CHAINED:
        assert chain_of("", entry | {name: "other"}) != entry["chain"]
    assert chain_of("x", entry) != entry["chain"]


def test_a_tail_that_was_cut_off_shows_by_an_earlier_head(
    client: Client, database: Database
) -> None:
    number, link = verify(client, None).head.split(":")
    tamper(database, "DELETE FROM audit_log WHERE id > 3")
    assert verify(client, None).problem == "", "by itself it does not show"
    assert "not in the chain" in verify(client, (int(number), link)).problem


def test_a_chain_that_was_made_anew_shows_by_an_earlier_head(
    client: Client, database: Database
) -> None:
    head = verify(client, None).head.split(":")
    entries = client.get("/audit", after=0)["items"]
    link, changes = "", []
    for entry in entries:
        link = chain_of(link, entry | {"actor": "bob"})
        changes.append(f"UPDATE audit_log SET actor='bob', chain='{link}' WHERE id={entry['id']}")
    tamper(database, *changes)
    assert verify(client, None).problem == ""
    assert "not in the chain" in verify(client, (int(head[0]), head[1])).problem


def test_entries_from_before_the_chain(client: Client, database: Database) -> None:
    tamper(database, "UPDATE audit_log SET chain = NULL")
    assert verify(client, None) == ChainFound(0, 5, "", "")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
@settings(max_examples=200)
def test_an_essence_is_json_that_comes_back_the_same(value: Any) -> None:
    """What the chain is made of must be what the API gives back, whatever was sent."""
    from starlette.datastructures import Headers

    body = Body(Headers({"content-type": "application/json"}))
    body._content += json.dumps({"value": value}).encode()
    essence = body.essence()
    text_ = json.dumps(essence, allow_nan=False)
    assert json.loads(text_) == essence


def test_the_command(cli: Any, database: Database) -> None:
    cli.run("rollout", "abort", "7", code=ExitCode.NOT_FOUND)
    text_ = cli.table("audit", "verify")
    assert "1 entries are whole" in text_
    head = cli.json("audit", "verify")["head"]
    assert head in text_
    cli.run("audit", "verify", "--head", head)
    assert "no head" in cli.refused(ExitCode.USAGE, "audit", "verify", "--head", "7")
    tamper(database, "UPDATE audit_log SET detail = 'nothing'")
    assert "entry 1 does not follow" in cli.refused(ExitCode.FAILED, "audit", "verify")
