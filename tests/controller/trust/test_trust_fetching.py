"""A controller that lies to who is about to sign: each lie is seen."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trust_bench import Publisher, new_key

from edgeloop.errors import ApiError
from edgeloop_controller.trust.fetching import fetch_standing, fetch_version
from edgeloop_controller.trust.home import Home
from edgeloop_controller.trust.metadata import ROOT
from edgeloop_protocol.errors import TrustError


class Lying:
    """A client of a controller that gives what it was told to give."""

    def __init__(self, publisher: Publisher, package: Any = None) -> None:
        self.answers: dict[str, bytes] = {}
        self.stands(publisher)
        if package is not None:
            manifest = package.manifest
            self.answers |= {
                f"/models/{manifest.name}/versions/{manifest.version}": json.dumps(
                    {"manifest_digest": manifest.digest()}
                ).encode(),
                f"/artifacts/{manifest.digest()}": manifest.canonical(),
                f"/artifacts/{manifest.artifact.digest}": package.model,
            }

    def stands(self, publisher: Publisher) -> None:
        standing = publisher.standing
        assert standing is not None
        documents = [standing.root, *standing.roles.values()]
        roles = [{"role": one.role, "version": one.version} for one in documents]
        self.answers |= {f"/trust/metadata/{one.file_name}": one.content for one in documents}
        self.answers["/trust"] = json.dumps({"initialised": True, "roles": roles}).encode()

    def get(self, path: str) -> Any:
        if path not in self.answers:
            raise ApiError(404, "not_found", path, "")
        return json.loads(self.answers[path])

    def stream(self, path: str) -> Iterator[bytes]:
        yield self.answers[path]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher().initialised()


@pytest.fixture
def home(publisher: Publisher, tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    assert publisher.standing is not None
    home.keep_root(publisher.standing.root)
    return home


def _fetch(client: Any, home: Home) -> Any:
    return fetch_standing(client, home)


def test_what_is_true_is_taken_and_remembered(publisher: Publisher, home: Home) -> None:
    publisher.signs("1.0", 1)
    client = Lying(publisher)
    assert _fetch(client, home).targets.version == 2
    draft = publisher.draft()
    draft.add_key(ROOT, new_key().public_key)
    publisher.accepts(draft, *publisher.root)
    client.stands(publisher)
    assert _fetch(client, home).root.version == 2
    assert home.root().version == 2
    assert json.loads((home.directory / "seen.json").read_text()) == {"root": 2, "targets": 2}


def test_older_targets_than_were_seen(publisher: Publisher, home: Home) -> None:
    old = Lying(publisher)
    publisher.signs("1.0", 1)
    _fetch(Lying(publisher), home)
    with pytest.raises(TrustError, match="gives version 1 of targets; 2 was seen") as caught:
        _fetch(old, home)
    assert "seen.json" in caught.value.hint


def test_targets_of_somebody_else(publisher: Publisher, home: Home) -> None:
    client, other = Lying(publisher), Publisher().initialised()
    assert other.standing is not None
    client.answers["/trust/metadata/1.targets.json"] = other.standing.targets.content
    with pytest.raises(TrustError, match=r"targets 1, .* is not signed by who may"):
        _fetch(client, home)


def test_a_root_that_the_chain_does_not_lead_to(publisher: Publisher, home: Home) -> None:
    client, other = Lying(publisher), Publisher().initialised()
    draft = other.draft()
    draft.renew(ROOT)
    root = other.accepts(draft, *other.root).root
    client.answers["/trust/metadata/2.root.json"] = root.content
    with pytest.raises(TrustError, match="root 2 is not signed by the keys of root 1"):
        _fetch(client, home)
    assert home.root().version == 1


def test_another_version_than_was_asked_for(publisher: Publisher, home: Home) -> None:
    client = Lying(publisher)
    first = client.answers["/trust/metadata/1.targets.json"]
    publisher.signs("1.0", 1)
    client.stands(publisher)
    client.answers["/trust/metadata/2.targets.json"] = first
    with pytest.raises(TrustError, match="version 2 was asked for; 1 came"):
        _fetch(client, home)


def test_a_fleet_whose_root_is_not_known(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="no root to begin from") as caught:
        _fetch(Lying(publisher), Home(tmp_path))
    assert "copy root.json" in caught.value.hint


# ---- versions -----------------------------------------------------------------------------------


def _swap_artifact(client: Lying, package: Any) -> None:
    client.answers[f"/artifacts/{package.manifest.artifact.digest}"] = b"mallory's"


def _swap_manifest(client: Lying, package: Any) -> None:
    manifest = package.manifest.model_copy(update={"labels": ("right", "left")})
    client.answers[f"/artifacts/{package.manifest.digest()}"] = manifest.canonical()


def _give_another_version(client: Lying, package: Any) -> None:
    content = package.manifest.model_copy(update={"version": "0"}).canonical()
    digest = hashlib.sha256(content).hexdigest()
    client.answers["/models/tiny/versions/1"] = json.dumps({"manifest_digest": digest}).encode()
    client.answers[f"/artifacts/{digest}"] = content


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (_swap_artifact, "what the controller gives is not the artifact of tiny@1"),
        (_swap_manifest, "is another file"),
        (_give_another_version, "the manifest of tiny@0 as tiny@1's"),
    ],
)
def test_a_version_that_is_another(
    publisher: Publisher, make_package: Any, lie: Callable[[Lying, Any], None], said: str
) -> None:
    package = make_package("1")
    client: Any = Lying(publisher, package)
    honest = fetch_version(client, "tiny", "1", None)
    assert (honest.artifact_sha256, honest.is_local) == (package.manifest.artifact.digest, False)
    lie(client, package)
    with pytest.raises(TrustError, match=said):
        fetch_version(client, "tiny", "1", None)


def test_the_local_file_counts_and_nothing_is_fetched_in_its_place(
    publisher: Publisher, make_package: Any, tmp_path: Path
) -> None:
    package, file = make_package("1"), tmp_path / "model.onnx"
    client: Any = Lying(publisher, package)
    _swap_artifact(client, package)
    file.write_bytes(package.model)
    assert fetch_version(client, "tiny", "1", file).is_local
    file.write_bytes(b"another")
    with pytest.raises(TrustError, match=r"model\.onnx is not the artifact of tiny@1"):
        fetch_version(client, "tiny", "1", file)
    with pytest.raises(TrustError, match="No such file"):
        fetch_version(client, "tiny", "1", tmp_path / "none")
