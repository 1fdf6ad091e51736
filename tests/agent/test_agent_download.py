"""Fetching into the store: resumed, bounded, verified; and the worker that answers with events."""

import errno
import hashlib
import queue
from contextlib import suppress

import pytest

from edgeloop_agent.core.effects import FetchArtifact, FetchManifest
from edgeloop_agent.core.events import ArtifactFetched, FetchFailed, FetchProblem, ManifestFetched
from edgeloop_agent.errors import FetchCorruptError, FetchNoSpaceError, FetchUnreachableError
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.inventory import DeviceInventory
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path, part_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_simulators.twins.artifact_source import MemoryArtifactSource
from edgeloop_simulators.twins.disk import MemoryDisk


@pytest.fixture
def package(make_package):
    return make_package()


@pytest.fixture
def source(package):
    return MemoryArtifactSource(package.artifacts)


@pytest.fixture
def disk(tmp_path):
    return OsDisk(tmp_path)


@pytest.fixture
def store(disk):
    return ModelStore(disk)


@pytest.fixture
def downloader(source, store):
    return Downloader(source, store)


def never():
    return False


def test_manifest_and_artifact_reach_the_store_once(downloader, source, store, package, disk):
    digest = package.manifest.digest()
    for _ in range(2):
        assert downloader.manifest(package.offer) == package.manifest.canonical()
        downloader.artifact(package.offer, never)
    assert disk.path(model_path(digest)).read_bytes() == package.model
    assert [d for d, _ in source.opened] == [digest, package.manifest.artifact.digest]
    assert not list(disk.path("models").glob("*.part"))


def test_a_cut_download_is_resumed(downloader, source, store, package, disk):
    """EL-ART-2."""
    downloader.manifest(package.offer)
    source.cut_after_bytes = 50
    with pytest.raises(FetchUnreachableError):
        downloader.artifact(package.offer, never)
    downloader.artifact(package.offer, never)
    assert source.opened[-1] == (package.manifest.artifact.digest, 50)
    assert disk.path(model_path(package.manifest.digest())).read_bytes() == package.model


def test_wrong_bytes_never_reach_their_final_name(downloader, source, store, package, disk):
    """EL-ART-3."""
    digest = package.manifest.artifact.digest
    source.artifacts[digest] = bytes(len(package.model))
    with pytest.raises(FetchCorruptError, match="not what its digest names"):
        downloader.artifact(package.offer, never)
    assert not disk.path(model_path(package.manifest.digest())).exists()
    assert not disk.path(part_path(digest)).exists(), "and are not resumed"
    source.artifacts |= package.artifacts
    downloader.artifact(package.offer, never)


def test_a_part_that_a_power_cut_tore_is_not_held_against_the_server(
    downloader, source, package, disk
):
    digest = package.manifest.artifact.digest
    downloader.manifest(package.offer)
    for torn in (50, len(package.model)):
        disk.path(part_path(digest)).write_bytes(bytes(torn))
        downloader.artifact(package.offer, never)
        assert source.opened[-1] == (digest, 0), "begun anew, at once"
        assert disk.path(model_path(package.manifest.digest())).read_bytes() == package.model
        disk.path(model_path(package.manifest.digest())).unlink()
    source.artifacts[digest] = bytes(len(package.model))
    disk.path(part_path(digest)).write_bytes(bytes(50))
    with pytest.raises(FetchCorruptError, match="not what its digest names"):
        downloader.artifact(package.offer, never)


class FailingOnce:
    """A MemoryDisk's `before`: the n-th of one operation fails."""

    def __init__(self, operation, number):
        self.left = {operation: number}

    def __call__(self, operation, path):
        if operation in self.left:
            self.left[operation] -= 1
            if not self.left[operation]:
                raise OSError(errno.EIO, "Input/output error", path)


@pytest.mark.parametrize("sync", range(1, 9))
def test_what_is_found_in_place_is_made_durable(source, package, sync):
    """Its directory's sync may have failed after the rename; a power cut must not find that out."""
    disk = MemoryDisk()
    downloader = Downloader(source, ModelStore(disk))
    disk.before = FailingOnce("sync_directory", sync)
    for _ in range(2):
        with suppress(OSError, FetchNoSpaceError):
            downloader.manifest(package.offer)
            downloader.artifact(package.offer, never)
    disk.before = None
    disk.sync_directory("")  # as a save of the journal does, beside `models`
    digest = package.manifest.digest()
    assert disk.durable(manifest_path(digest)) == package.manifest.canonical()
    assert disk.durable(model_path(digest)) == package.model


def test_a_part_that_cannot_be_read_back_is_not_held_against_the_server(source, package):
    disk = MemoryDisk(before=FailingOnce("read", 2))
    downloader = Downloader(source, ModelStore(disk))
    with pytest.raises(FetchNoSpaceError, match="cannot be read back"):
        downloader.artifact(package.offer, never)
    downloader.artifact(package.offer, never)
    assert [offset for _, offset in source.opened] == [0]


def test_never_more_than_was_offered_is_written(downloader, source, store, package, disk):
    source.artifacts[package.manifest.artifact.digest] = package.model + b"x"
    with pytest.raises(FetchCorruptError, match="longer than"):
        downloader.artifact(package.offer, never)
    assert not disk.path(part_path(package.manifest.artifact.digest)).exists()
    source.artifacts[package.manifest.digest()] += b" "
    with pytest.raises(FetchCorruptError, match="longer than"):
        downloader.manifest(package.offer)


def test_a_part_that_is_too_long_is_begun_anew(downloader, store, package, disk):
    disk.path(part_path(package.manifest.artifact.digest)).write_bytes(
        bytes(len(package.model) + 1)
    )
    downloader.artifact(package.offer, never)
    assert disk.path(model_path(package.manifest.digest())).read_bytes() == package.model


def test_a_full_disk_waits(source, store, package, disk, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda: 10)
    with pytest.raises(FetchNoSpaceError, match="disk: 10 bytes free"):
        Downloader(source, store).artifact(package.offer, never)
    assert not disk.path(part_path(package.manifest.artifact.digest)).exists()


@pytest.mark.parametrize("have", [0, 10])
def test_an_artifact_that_is_short_at_the_server_is_corrupt(
    downloader, source, package, disk, have
):
    """No more of it will ever come; a link that breaks raises, and is no fault of the version."""
    digest = package.manifest.artifact.digest
    source.artifacts[digest] = package.model[:-1]
    if have:
        disk.path(part_path(digest)).write_bytes(package.model[:have])
    size = len(package.model)
    with pytest.raises(FetchCorruptError, match=f"only {size - 1} of the {size} bytes"):
        downloader.artifact(package.offer, never)
    assert not disk.path(part_path(digest)).exists()


def test_a_manifest_that_ends_early_waits_for_the_rest(downloader, source, package):
    """It comes first: what a captive portal answers must bar nothing."""
    source.artifacts[package.manifest.digest()] = b"<html>Sign in"
    with pytest.raises(FetchUnreachableError, match="ended after 13"):
        downloader.manifest(package.offer)


def test_what_is_no_longer_wanted_is_given_up(downloader, package):
    with pytest.raises(FetchUnreachableError, match="no longer wanted"):
        downloader.artifact(package.offer, lambda: True)


def test_garbage_is_collected_and_the_rest_kept(downloader, store, make_package, source, disk):
    kept, gone = make_package("1"), make_package("2")
    for package in (kept, gone):
        source.artifacts |= package.artifacts
        downloader.manifest(package.offer)
        downloader.artifact(package.offer, never)
    disk.path(part_path("a" * 64)).write_bytes(b"half")
    disk.path(part_path("b" * 64)).write_bytes(b"half")
    store.collect_garbage({kept.manifest.digest()}, {"a" * 64})
    assert disk.path(model_path(kept.manifest.digest())).exists()
    assert not disk.path(model_path(gone.manifest.digest())).exists()
    assert [path.name for path in disk.path("models").glob("*.part")] == [f"{'a' * 64}.part"]


def test_the_worker_answers_each_fetch_with_one_event(downloader, source, package, tmp_path):
    answers = queue.Queue()
    worker = FetchWorker(downloader, DeviceInventory(tmp_path), answers.put)
    worker.start()
    offer = package.offer
    digest = offer.manifest_digest

    def ask(fetch):
        worker.submit(fetch)
        return answers.get(timeout=10)

    fetched = ask(FetchManifest("main", offer))
    assert isinstance(fetched, ManifestFetched)
    assert fetched.manifest == package.manifest
    assert fetched.inventory.runtimes[0].max_opset >= 17
    assert not fetched.artifact_on_disk
    assert ask(FetchArtifact("main", offer)) == ArtifactFetched("main", digest)
    assert ask(FetchManifest("main", offer)).artifact_on_disk

    source.reachable = False
    other = offer.model_copy(update={"manifest_digest": "0" * 64, "artifact_digest": "0" * 64})
    failed = ask(FetchArtifact("main", other))
    assert (failed.problem, failed.detail) == (FetchProblem.WAIT, "the controller is away")
    source.reachable = True
    source.artifacts["0" * 64] = bytes(offer.manifest_size_bytes)
    assert ask(FetchManifest("main", other)).problem is FetchProblem.CORRUPT
    worker.stop()


def test_right_bytes_that_are_no_manifest_are_unusable(downloader, source, package, tmp_path):
    document = b'{"name": "tiny"}'
    digest = hashlib.sha256(document).hexdigest()
    source.artifacts[digest] = document
    offer = package.offer.model_copy(
        update={"manifest_digest": digest, "manifest_size_bytes": len(document)}
    )
    answers = queue.Queue()
    worker = FetchWorker(downloader, DeviceInventory(tmp_path), answers.put)
    worker.start()
    worker.submit(FetchManifest("main", offer))
    failed = answers.get(timeout=10)
    assert isinstance(failed, FetchFailed)
    assert failed.problem is FetchProblem.UNUSABLE
    assert "manifest:" in failed.detail
    worker.stop()
