"""An offer that names a patch: the patch first, and the full file whatever is wrong with it."""

import errno
import hashlib
from contextlib import suppress

import numpy as np
import pytest

from edgeloop_agent.errors import FetchError, FetchUnreachableError, PatchFailedError
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.model_store import ModelStore, model_path, part_path, tried_path
from edgeloop_agent.shell.patch_route import PATCH_FETCHES_MAX, PatchRoute
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.messages import Offer, Patch
from edgeloop_protocol.patch_formats import TENSORS
from edgeloop_simulators.twins.artifact_source import MemoryArtifactSource
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.twins.patch_applier import MemoryPatchApplier

RESERVE_BYTES = 1000
WEIGHTS = np.random.default_rng(0).normal(size=5000).astype(np.float32)
OLD, NEW = WEIGHTS.tobytes(), (WEIGHTS + np.float32(1e-4)).tobytes()
PATCH = make_tensor_patch(OLD, NEW)
OLD_MANIFEST, NEW_MANIFEST = "a" * 64, "b" * 64


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


PATCHED_OFFER = Offer(
    name="m",
    version="2",
    manifest_digest=NEW_MANIFEST,
    manifest_size_bytes=1,
    artifact_digest=digest_of(NEW),
    artifact_size_bytes=len(NEW),
    patch=Patch(
        format=TENSORS,
        base_manifest_digest=OLD_MANIFEST,
        base_artifact_digest=digest_of(OLD),
        digest=digest_of(PATCH),
        size_bytes=len(PATCH),
    ),
)


class Device:
    """`restart` is another life of the agent on the same disk."""

    def __init__(self):
        self.disk = MemoryDisk()
        self.source = MemoryArtifactSource({digest_of(NEW): NEW, digest_of(PATCH): PATCH})
        self.notes = []
        self.applier = MemoryPatchApplier(self.disk)
        self.restart()
        self.disk.sync_directory("")  # as a save of the journal does, beside `models`
        self.disk.make_directory(f"models/{OLD_MANIFEST}")
        self.put(model_path(OLD_MANIFEST), OLD)

    def restart(self):
        store = ModelStore(self.disk)
        self.downloader = Downloader(
            self.source,
            store,
            RESERVE_BYTES,
            PatchRoute(self.applier, store),
            lambda _offer, slot, name, detail: self.notes.append((slot, name, detail)),
        )

    def put(self, path, content):
        with self.disk.open(path) as file:
            file.write(content)

    def install(self, offer=PATCHED_OFFER, cancelled=lambda: False):
        self.downloader.artifact(offer, cancelled, "main")
        assert self.disk.durable(model_path(NEW_MANIFEST)) == NEW
        assert [n for n in self.disk.list("models") if n.endswith((".part", ".patched"))] == []

    def with_patch(self, **changes):
        patch = PATCHED_OFFER.patch.model_copy(update=changes)
        return PATCHED_OFFER.model_copy(update={"patch": patch})

    @property
    def fetched(self):
        names = {digest_of(NEW): "full", digest_of(PATCH): "patch"}
        return [names.get(digest, digest) for digest, _ in self.source.opened]

    def assert_fell_back(self, why):
        ((slot, name, detail),) = self.notes
        assert (slot, name) == ("main", "patch_failed")
        assert why in detail
        assert self.fetched[-1] == "full"


@pytest.fixture
def device():
    return Device()


def test_the_patch_is_fetched_in_place_of_the_full_file(device):
    """EL-ART-4."""
    device.install()
    assert device.fetched == ["patch"]
    assert [name for _, name, _ in device.notes] == ["patched"]
    assert f"{len(PATCH)} bytes in place of {len(NEW)}" in device.notes[0][2]


def test_without_an_applier_the_full_file_is_fetched(device):
    Downloader(device.source, ModelStore(device.disk), 0).artifact(PATCHED_OFFER, lambda: False)
    assert device.fetched == ["full"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda d: d.disk.remove(model_path(OLD_MANIFEST)), "is not here"),
        (lambda d: d.put(model_path(OLD_MANIFEST), OLD[:-1]), "is damaged"),
        (lambda d: setattr(d.applier, "formats", ()), "cannot apply the format"),
        (lambda d: d.source.artifacts.pop(digest_of(PATCH)), "no artifact"),
        (lambda d: d.source.artifacts.update({digest_of(PATCH): PATCH + b"x"}), "longer than"),
        (
            lambda d: d.source.artifacts.update({digest_of(PATCH): bytes(len(PATCH))}),
            "bytes are",
        ),
        (lambda d: setattr(d.applier, "fault", raising(PatchFailedError("SIGSEGV"))), "SIGSEGV"),
        (lambda d: setattr(d.applier, "fault", raising(OSError(28, "full"))), "full"),
    ],
)
def test_whatever_is_wrong_with_it_the_full_file_is_fetched(device, spoil, why):
    """EL-ART-5."""
    spoil(device)
    device.install()
    device.assert_fell_back(why)


def raising(error):
    def fault(_job):
        raise error

    return fault


def test_what_comes_of_it_is_verified(device):
    """EL-ART-3, EL-ART-5."""
    wrong = make_tensor_patch(OLD, NEW[:-1] + b"?")
    device.source.artifacts[digest_of(wrong)] = wrong
    device.install(device.with_patch(digest=digest_of(wrong), size_bytes=len(wrong)))
    device.assert_fell_back("not the artifact")


def test_a_disk_that_holds_only_the_full_file_gets_that(device):
    used = sum(len(device.disk.read(p)) for p in (model_path(OLD_MANIFEST),))
    device.disk.capacity_bytes = used + len(NEW) + RESERVE_BYTES + len(PATCH) // 2
    device.install()
    device.assert_fell_back("the disk does not hold")


def test_a_link_that_fails_waits_and_the_patch_is_resumed(device):
    """EL-ART-2."""
    device.source.cut_after_bytes = 100
    with pytest.raises(FetchUnreachableError):
        device.install()
    device.install()
    assert device.source.opened == [(digest_of(PATCH), 0), (digest_of(PATCH), 100)]


def test_a_patch_that_cannot_be_fetched_gives_way_to_the_full_file(device):
    for _ in range(PATCH_FETCHES_MAX):
        device.source.cut_after_bytes = 1
        with pytest.raises(FetchUnreachableError):
            device.install()
    device.install()
    device.assert_fell_back("could not be fetched")


def test_what_is_no_longer_wanted_is_given_up(device):
    for _ in range(PATCH_FETCHES_MAX + 1):
        with pytest.raises(FetchUnreachableError, match="no longer wanted"):
            device.install(cancelled=lambda: True)
    device.install()
    assert device.fetched[-1] == "patch", "that was not the link's fault"


def test_a_patch_that_brought_down_the_device_is_not_tried_again(device):
    """Also not after the restart: that it is tried is durable before it is."""

    class PowerCutError(BaseException):
        pass

    device.applier.fault = raising(PowerCutError())
    with pytest.raises(PowerCutError):
        device.install()
    assert device.disk.durable(tried_path(digest_of(PATCH))) is not None
    device.restart()
    device.install()
    device.assert_fell_back("ended while it was applied")
    assert len(device.applier.jobs) == 1


def test_a_failed_patch_is_neither_fetched_nor_told_twice(device):
    device.applier.fault = raising(PatchFailedError("no"))
    device.source.artifacts.pop(digest_of(NEW))
    for _ in range(3):
        with suppress(FetchUnreachableError):
            device.install()
    device.source.artifacts[digest_of(NEW)] = NEW
    device.install()
    assert device.fetched.count("patch") == 1
    assert len(device.notes) == 1


@pytest.mark.parametrize("operation", ["open", "write", "sync", "rename", "sync_directory", "read"])
def test_a_disk_that_fails_at_the_patch_does_not_keep_the_full_file_away(device, operation):
    """Each of its first operations in turn fails, once."""
    for number in range(1, 12):
        fresh = Device()
        fresh.disk.before = FailingOnce(operation, number)
        with suppress(OSError, FetchError):
            fresh.downloader.artifact(PATCHED_OFFER, lambda: False, "main")
        fresh.disk.before = None
        fresh.downloader.artifact(PATCHED_OFFER, lambda: False, "main")
        assert fresh.disk.durable(model_path(NEW_MANIFEST)) == NEW


class FailingOnce:
    """A MemoryDisk's `before`: the n-th of one operation fails."""

    def __init__(self, operation, number):
        self.left = {operation: number}

    def __call__(self, operation, path):
        if operation in self.left:
            self.left[operation] -= 1
            if not self.left[operation]:
                raise OSError(errno.EIO, "Input/output error", path)


def test_a_bug_in_the_applier_does_not_keep_the_full_file_away(device):
    device.applier.fault = raising(ZeroDivisionError("oh"))
    device.install()
    device.assert_fell_back("oh")


def test_a_full_download_that_is_nearly_done_goes_on(device):
    device.put(part_path(digest_of(NEW)), NEW[:-10])
    device.install()
    assert device.source.opened == [(digest_of(NEW), len(NEW) - 10)]


def test_a_patch_larger_than_the_file_is_not_taken(device):
    device.install(device.with_patch(size_bytes=len(NEW)))
    assert device.fetched == ["full"]


def test_garbage_of_patches_is_collected_with_their_version(device):
    store = ModelStore(device.disk)
    names = [f"models/{'c' * 64}{suffix}" for suffix in (".part", ".tried", ".patched")]
    for name in names:
        device.put(name, b"x")
    store.collect_garbage({OLD_MANIFEST}, {"c" * 64})
    assert all(device.disk.size(name) is not None for name in names)
    store.collect_garbage({OLD_MANIFEST}, set())
    assert all(device.disk.size(name) is None for name in names)
