"""The contract of `edgeloop_controller.artifacts.ArtifactStore`, for every adapter."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop_controller.artifacts import ArtifactStore, LocalArtifactStore
from edgeloop_controller.errors import ArtifactError, NotFoundError
from edgeloop_simulators.twins.artifact_store import MemoryArtifactStore

ADAPTERS: dict[str, Callable[[Path], ArtifactStore]] = {
    "local": LocalArtifactStore,
    "memory": lambda _directory: MemoryArtifactStore(),
}


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return ADAPTERS[request.param](tmp_path / "artifacts")


@pytest.fixture
def local(tmp_path: Path) -> LocalArtifactStore:
    """The twin serves no files: nobody in a virtual world reads any."""
    return LocalArtifactStore(tmp_path / "artifacts")


def test_gives_back_what_was_put(store: ArtifactStore) -> None:
    digest = store.put(b"weights")
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert store.get(digest) == b"weights"


def test_what_was_removed_is_gone_and_can_be_put_again(store: ArtifactStore) -> None:
    digest, kept = store.put(b"patch"), store.put(b"weights")
    for _ in range(2):
        store.remove(digest)
        with pytest.raises(NotFoundError):
            store.get(digest)
    assert store.get(kept) == b"weights"
    assert store.get(store.put(b"patch")) == b"patch"


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "0" * 64])
def test_removing_what_is_not_there_changes_nothing(store: ArtifactStore, digest: str) -> None:
    kept = store.put(b"weights")
    store.remove(digest)
    assert store.get(kept) == b"weights"


def test_serves_a_file(local: LocalArtifactStore) -> None:
    assert local.local_path(local.put(b"weights")).read_bytes() == b"weights"


def test_keeps_nothing_as_well(store: ArtifactStore) -> None:
    assert store.get(store.put(b"")) == b""


def test_putting_twice_is_putting_once(store: ArtifactStore) -> None:
    assert store.put(b"same") == store.put(b"same")


def test_writers_of_the_same_content_agree(store: ArtifactStore) -> None:
    content = b"x" * 1_000_000
    threads = [threading.Thread(target=store.put, args=(content,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(hashlib.sha256(content).hexdigest()) == content


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", "", "A" * 64, "0" * 63])
def test_what_is_not_there_is_not_found(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(NotFoundError):
        store.get(digest)
    with pytest.raises(NotFoundError):
        store.local_path(digest)


def test_damage_is_noticed(local: LocalArtifactStore) -> None:
    digest = local.put(b"good")
    local.local_path(digest).write_bytes(b"evil")
    with pytest.raises(ArtifactError, match="damaged"):
        local.get(digest)


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "ab"
    directory.mkdir()
    (directory / ".abc.1234.part").write_bytes(b"half")
    LocalArtifactStore(tmp_path)
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot make"):
        LocalArtifactStore(tmp_path / "file")
