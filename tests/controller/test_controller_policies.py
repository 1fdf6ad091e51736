"""Retraining policies that are given over the API, beside those that are files."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig, RetrainingConfig
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.errors import ConflictError, NotFoundError, PolicyError
from edgeloop_controller.services import policies as module
from edgeloop_controller.services.policies import PolicyShelf
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Event


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    directory = tmp_path / "scripts"
    directory.mkdir(exist_ok=True)
    (directory / "train.py").write_text("")
    (tmp_path / "outside.py").write_text("")
    (directory / "link.py").symlink_to(tmp_path / "outside.py")
    return directory


@pytest.fixture
def shelf(controller: Any, scripts: Path) -> PolicyShelf:
    found: PolicyShelf = controller.parts.services.policies
    return found


def terms(script: str = "train.py", **rest: Any) -> PolicyTerms:
    return PolicyTerms(model="tiny", script=script, **rest)


def test_a_policy_is_given_changed_and_taken_away(
    shelf: PolicyShelf, database: Database, scripts: Path
) -> None:
    shelf.give("p", terms(inputs={"base": "train.py"}))
    found = shelf.load().require("p")
    assert (found.script, found.inputs["base"]) == (str(scripts / "train.py"),) * 2
    shelf.give("p", terms(inputs={"base": "train.py"}))
    shelf.give("p", terms(min_labels=7))
    assert shelf.load().terms("p") == terms(min_labels=7)
    shelf.take_away("p")
    with pytest.raises(NotFoundError, match="no retraining policy 'p'"):
        shelf.load().require("p")
    with pytest.raises(NotFoundError, match="given over the API"):
        shelf.take_away("p")
    with database.reading() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject == "p")).all()
    assert kinds == ["policy.changed", "policy.changed", "policy.removed"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("/etc/passwd", "not a path below"),
        ("../outside.py", "not a path below"),
        ("a/../../outside.py", "not a path below"),
        ("link.py", "no file 'link.py'"),
        ("none.py", "no file 'none.py'"),
        (".", "no file"),
        ("a\0b", "no file"),
        ("x" * 5000, "no file"),
    ],
)
def test_only_files_below_the_scripts_directory_are_run(
    shelf: PolicyShelf, script: str, said: str
) -> None:
    with pytest.raises(PolicyError, match=said):
        shelf.give("p", terms(script))
    with pytest.raises(PolicyError, match=rf"inputs\.x: .*{said}"):
        shelf.give("p", terms(inputs={"x": script}))
    assert shelf.load().found == {}


def test_without_a_scripts_directory_no_policy_is_taken(
    controller: Any, database: Database
) -> None:
    shelf = PolicyShelf(database, controller.clock, RetrainingConfig())
    with pytest.raises(PolicyError, match="takes no policies") as refused:
        shelf.give("p", terms())
    assert "scripts_dir" in refused.value.hint


def test_a_script_that_leads_out_later_is_not_run(shelf: PolicyShelf, scripts: Path) -> None:
    shelf.give("p", terms())
    (scripts / "train.py").unlink()
    (scripts / "train.py").symlink_to(scripts.parent / "outside.py")
    loaded = shelf.load()
    assert "p" not in loaded.found
    assert "no file 'train.py'" in loaded.errors["policy p"]


def test_a_name_is_a_files_or_the_apis(
    shelf: PolicyShelf, config: ControllerConfig, scripts: Path
) -> None:
    shelf.give("p", terms(min_labels=7))
    assert config.retraining.policies_dir is not None
    (config.retraining.policies_dir / "p.toml").write_text(
        f'name = "p"\nmodel = "tiny"\nscript = "{scripts / "train.py"}"\n'
    )
    loaded = shelf.load()
    assert (loaded.origin("p"), loaded.require("p").min_labels) == ("file", 100)
    assert "policies_dir" in loaded.errors["policy p"]
    with pytest.raises(ConflictError, match="file of the controller's own"):
        shelf.give("p", terms())


def test_there_is_a_bound(shelf: PolicyShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLICIES_MAX", 1)
    shelf.give("p", terms())
    shelf.give("p", terms(min_labels=7))
    with pytest.raises(ConflictError, match="1 policies are given already"):
        shelf.give("q", terms())


def test_over_http(controller: Any, scripts: Path) -> None:
    app = create_app(controller.parts.services)
    with TestClient(app, base_url="http://localhost/v1") as api:
        path = "/retraining/policies/p"
        body = {"model": "tiny", "script": "train.py", "min_labels": 9}
        given = api.put(path, json=body).json()
        assert (given["origin"], given["terms"]["min_labels"]) == ("api", 9)
        refused = api.put(path, json=body | {"script": "/bin/sh"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_policy")
        assert "scrpt" in api.put(path, json=body | {"scrpt": "x"}).json()["error"]["message"]
        assert api.delete(path).json() == {"name": "p"}
        assert api.get("/retraining/policies").json()["items"] == []
        assert api.delete(path).status_code == 404
