"""The contract of `edgeloop_controller.trust_store.TrustStore`, for every adapter."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeloop_controller.errors import NotFoundError, StartError
from edgeloop_controller.trust_store import LocalTrustStore, MemoryTrustStore, TrustStore

ADAPTERS: dict[str, Callable[[Path], TrustStore]] = {
    "local": LocalTrustStore,
    "memory": lambda _directory: MemoryTrustStore(),
}
OLD = {"metadata/1.root.json": "one", "metadata/timestamp.json": "old", "keys/a.pem": "secret"}
CHANGE: dict[str, str | None] = {
    "metadata/2.root.json": "two",
    "metadata/timestamp.json": "new",
    "keys/a.pem": None,
    "waiting.json": "[]",
}


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TrustStore:
    return ADAPTERS[request.param](tmp_path / "trust")


def _content(store: TrustStore) -> dict[str, str]:
    return {name: store.read(name).decode() for name in store.names()}


def _changed() -> dict[str, str]:
    return {name: text for name, text in {**OLD, **CHANGE}.items() if text is not None}


def test_gives_back_what_was_committed(store: TrustStore) -> None:
    assert store.names() == []
    store.commit(OLD)
    store.commit(CHANGE)
    assert _content(store) == _changed()


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b/c", "", ".", "metadata/../../x", "metadata/.x", "a\0"]
)
def test_nothing_outside_is_read_or_written(store: TrustStore, name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    store.commit(OLD)
    with pytest.raises(NotFoundError):
        store.read(name)
    with pytest.raises(ValueError, match="no name"):
        store.commit({name: "x"})
    assert _content(store) == OLD


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    LocalTrustStore(tmp_path / "trust").commit(OLD)
    for path in (tmp_path / "trust").rglob("*"):
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == allowed, path


class CutError(Exception):
    """The power, at one call of the operating system."""


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "unlink"])
def test_a_cut_at_any_call_leaves_all_or_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk after each call is what a process that dies there leaves."""
    seen = set()
    for nth in range(1, 40):
        root = tmp_path / str(nth)
        LocalTrustStore(root).commit(OLD)
        store, cut = LocalTrustStore(root), _cut_at(monkeypatch, call, nth)
        with suppress(CutError):
            store.commit(CHANGE)
        monkeypatch.undo()
        found = _content(LocalTrustStore(root))
        assert found in (OLD, _changed()), nth
        seen.add(found == OLD)
        if not cut():
            break
    else:
        pytest.fail("it was cut every time")
    assert False in seen


def _cut_at(monkeypatch: pytest.MonkeyPatch, call: str, nth: int) -> Callable[[], bool]:
    """Whether it was cut."""
    made = [0]

    def counted(original: Any) -> Any:
        def maybe(*arguments: Any, **named: Any) -> Any:
            made[0] += 1
            if made[0] == nth:
                raise CutError
            return original(*arguments, **named)

        return maybe

    owner = os if call in ("open", "fsync") else Path
    monkeypatch.setattr(owner, call, counted(getattr(owner, call)))
    return lambda: made[0] >= nth


def test_what_a_full_disk_cut_short_is_completed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalTrustStore(tmp_path / "trust")
    store.commit(OLD)
    _cut_at(monkeypatch, "replace", 3)
    with pytest.raises(CutError):
        store.commit(CHANGE)
    monkeypatch.undo()
    store.recover()
    assert _content(store) == _changed()


def test_each_file_and_its_directory_are_synced_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that was not followed by the directory's fsync is lost with the power."""
    LocalTrustStore(tmp_path / "trust").commit(OLD)
    steps: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename {target.name}")
        return replace(path, target)

    def noted_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    monkeypatch.setattr(Path, "replace", noted_replace)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    LocalTrustStore(tmp_path / "trust").commit({"metadata/3.root.json": "three"})
    assert steps == [
        "fsync commit.json.part",
        "rename commit.json",
        "fsync trust",
        "fsync 3.root.json.part",
        "rename 3.root.json",
        "fsync metadata",
        "fsync metadata",
        "fsync trust",
    ]


def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    LocalTrustStore(tmp_path / "trust").commit(OLD)
    (tmp_path / "trust/commit.json").write_text("{")
    with pytest.raises(StartError, match="cannot be used") as caught:
        LocalTrustStore(tmp_path / "trust")
    assert "backup" in caught.value.hint
