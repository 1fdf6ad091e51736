"""The Fetcher port's contract: the agent's download thread, the downloads of a fleet on one loop,
and fetches in virtual time. (Over HTTP: test_http_fetcher_contract.)"""

import asyncio
import queue
from types import SimpleNamespace

import pytest

from edgeloop_agent.core.effects import FetchArtifact, FetchManifest
from edgeloop_agent.core.events import ArtifactFetched, FetchFailed, FetchProblem, ManifestFetched
from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.model_store import ModelStore, model_path
from edgeloop_protocol.messages import Inventory
from edgeloop_simulators.live.downloads import Body, LoopFetcher
from edgeloop_simulators.twins.artifact_source import MemoryArtifactSource
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.virtual.device.fetcher import VirtualFetcher
from edgeloop_simulators.virtual.kernel.loop import EventLoop

INVENTORY = Inventory(
    agent_version="0", architecture="x", python="3", memory_bytes=1, disk_free_bytes=1, cpu_count=1
)
RESERVE_BYTES = 1000


class Case:
    """A fetcher over artifacts in memory; `next` is its next event, None when none comes."""

    def __init__(self):
        self.disk = MemoryDisk(1 << 20)
        self.store = ModelStore(self.disk)
        self.source = MemoryArtifactSource({})
        self.words = queue.Queue()

    def downloader(self):
        return Downloader(self.source, self.store, RESERVE_BYTES)


class ThreadCase(Case):
    def __init__(self):
        super().__init__()
        self.fetcher = FetchWorker(self.downloader(), lambda: INVENTORY, self.words.put)
        self.fetcher.start()

    def next(self, timeout_s=10.0):
        try:
            return self.words.get(timeout=timeout_s)
        except queue.Empty:
            return None


class LoopCase(Case):
    """The loop runs while the test waits for a word."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        made = LoopFetcher(self, self.store, lambda: INVENTORY, self.words.put, RESERVE_BYTES)
        self.fetcher = SimpleNamespace(
            submit=lambda fetch: self.loop.call_soon(made.submit, fetch),
            keep=lambda manifests: self.loop.call_soon(made.keep, manifests),
            stop=lambda: self.stop(made),
        )

    async def get(self, digest, offset):
        """The server's part."""
        try:
            with self.source.open(digest, offset) as chunks:
                return Body(b"".join(chunks))
        except FetchUnreachableError as error:
            return Body(b"", str(error))

    def next(self, timeout_s=10.0):
        async def word():
            async with asyncio.timeout(timeout_s):
                while self.words.empty():
                    await asyncio.sleep(0.01)
            return self.words.get()

        try:
            return self.loop.run_until_complete(word())
        except TimeoutError:
            return None

    def stop(self, fetcher):
        fetcher.stop()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class VirtualCase(Case):
    def __init__(self):
        super().__init__()
        self.loop = EventLoop()
        self.fetcher = VirtualFetcher(
            self.loop, lambda: INVENTORY, self.words.put, lambda action: action(), lambda *_: None
        )
        self.fetcher.use(self.downloader())
        self.fetcher.start()

    def next(self, timeout_s=10.0):
        until_s = self.loop.now_s + timeout_s
        while self.words.empty() and self.loop.step(until_s):
            pass
        return None if self.words.empty() else self.words.get()


@pytest.fixture(params=[ThreadCase, LoopCase, VirtualCase], ids=["thread", "loop", "virtual"])
def case(request):
    made = request.param()
    yield made
    made.fetcher.stop()


def test_a_manifest_and_then_its_artifact(case, make_package):
    package = make_package()
    digest = package.manifest.digest()
    case.source.artifacts.update(package.artifacts)
    case.fetcher.submit(FetchManifest("main", package.offer))
    fetched = case.next()
    assert isinstance(fetched, ManifestFetched)
    assert (fetched.slot, fetched.digest, fetched.manifest) == ("main", digest, package.manifest)
    assert (fetched.inventory, fetched.artifact_on_disk) == (INVENTORY, False)
    case.fetcher.submit(FetchArtifact("main", package.offer))
    assert case.next() == ArtifactFetched("main", digest)
    assert case.disk.read(model_path(digest)) == package.model
    case.fetcher.submit(FetchManifest("main", package.offer))
    assert case.next().artifact_on_disk


def test_each_fetch_is_answered_once_in_order(case, make_package):
    packages = [make_package(str(number)) for number in range(4)]
    for package in packages:
        case.source.artifacts.update(package.artifacts)
        case.fetcher.submit(FetchManifest("main", package.offer))
    assert [case.next().digest for _ in packages] == [p.manifest.digest() for p in packages]
    assert case.next(0.2) is None


def test_what_cannot_be_had_now_waits(case, make_package):
    case.source.reachable = False
    case.fetcher.submit(FetchManifest("main", make_package().offer))
    failed = case.next()
    assert isinstance(failed, FetchFailed)
    assert failed.problem is FetchProblem.WAIT


def test_other_bytes_are_corrupt_and_are_not_kept(case, make_package):
    """EL-ART-3."""
    package = make_package()
    case.source.artifacts[package.manifest.artifact.digest] = bytes(len(package.model))
    case.fetcher.submit(FetchArtifact("main", package.offer))
    assert case.next().problem is FetchProblem.CORRUPT
    assert case.disk.size(model_path(package.manifest.digest())) is None


def test_a_download_of_what_is_no_longer_kept_is_given_up(case, make_package):
    package = make_package()
    case.source.artifacts.update(package.artifacts)
    case.fetcher.submit(FetchArtifact("main", make_package("other").offer))
    case.fetcher.submit(FetchArtifact("main", package.offer))
    case.fetcher.keep(frozenset({package.manifest.digest()}))
    case.next()
    assert case.next() == ArtifactFetched("main", package.manifest.digest())


def test_a_full_disk_waits(case, make_package):
    package = make_package()
    case.source.artifacts.update(package.artifacts)
    case.disk.capacity_bytes = RESERVE_BYTES
    case.fetcher.submit(FetchArtifact("main", package.offer))
    failed = case.next()
    assert failed.problem is FetchProblem.WAIT
    assert "disk" in failed.detail
