"""More of the Fetcher port's contract, over real HTTP: a device's download thread, and a fleet's
downloads on one loop. The server's faults are the test's to choose.
"""

import asyncio
import hashlib
import http.server
import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeloop_agent.core.effects import FetchArtifact, FetchManifest
from edgeloop_agent.core.events import ArtifactFetched, FetchFailed, FetchProblem, ManifestFetched
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path, part_path
from edgeloop_protocol.limits import DOWNLOAD_CHUNK_BYTES
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, TensorSpec
from edgeloop_protocol.messages import Inventory, Offer
from edgeloop_simulators.live.downloads import ArtifactServer, LoopFetcher
from edgeloop_simulators.twins.disk import MemoryDisk

PATIENCE_S = 20.0
MODEL = bytes(range(256)) * (DOWNLOAD_CHUNK_BYTES // 200)


def _manifest(model: bytes) -> Manifest:
    return Manifest(
        name="demo",
        version="1",
        artifact=Artifact(
            digest=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
            runtime="onnx",
            opset=17,
            ir_version=8,
        ),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 1)),),
        scores_output="p",
        features=(Feature(name="a", sensor="a"),),
        labels=("one",),
    )


def _offer(manifest: Manifest) -> Offer:
    return Offer(
        name=manifest.name,
        version=manifest.version,
        manifest_digest=manifest.digest(),
        manifest_size_bytes=len(manifest.canonical()),
        artifact_digest=manifest.artifact.digest,
        artifact_size_bytes=manifest.artifact.size_bytes,
    )


MANIFEST = _manifest(MODEL)
OFFER = _offer(MANIFEST)
INVENTORY = Inventory(
    agent_version="t", architecture="t", python="t", memory_bytes=1, disk_free_bytes=1, cpu_count=1
)


class Server:
    """`contents` by digest; `cut_after` ends the next answer early, once; `asked` is the Ranges;
    `length` of an answer: stated, chunked, or that of its connection."""

    def __init__(self) -> None:
        self.contents = {OFFER.manifest_digest: MANIFEST.canonical(), OFFER.artifact_digest: MODEL}
        self.cut_after: int | None = None
        self.honours_range = True
        self.length = "stated"
        self.gone = False
        self.asked: list[str | None] = []
        self.held = threading.Event()
        self.held.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.held.wait(PATIENCE_S)
        if self.gone:
            request.close_connection = True
            return
        content = self.contents.get(request.path.removeprefix("/v1/artifacts/"))
        self.asked.append(request.headers.get("Range"))
        if content is None:
            request.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.honours_range else 0
        request.send_response(206 if start else 200)
        if self.length == "stated":
            request.send_header("Content-Length", str(len(content) - start))
        elif self.length == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
            parts = content[start : start + 1000], content[start + 1000 :]
            content, start = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (*parts, b"")), 0
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        cut, self.cut_after = self.cut_after, None
        request.wfile.write(content[start:] if cut is None else content[start : start + cut])
        request.close_connection = cut is not None or self.length == "that of the connection"

    def close(self) -> None:
        self.gone = True
        self.held.set()
        self.http.shutdown()
        self.http.server_close()


class ThreadRig:
    def __init__(self, url: str) -> None:
        self.disk = MemoryDisk()
        self.events: queue.Queue[Any] = queue.Queue()
        downloader = Downloader(HttpArtifactSource(url), ModelStore(self.disk), 0)
        self.fetcher: Any = FetchWorker(downloader, lambda: INVENTORY, self.events.put)
        self.fetcher.start()

    def ask(self, call: Callable[[], Any]) -> Any:
        return call()

    def close(self) -> None:
        self.fetcher.stop()


class LoopRig:
    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.disk = MemoryDisk()
        self.events: queue.Queue[Any] = queue.Queue()
        self._server = self.ask(lambda: ArtifactServer(url))
        self.fetcher: Any = LoopFetcher(
            self._server, ModelStore(self.disk), lambda: INVENTORY, self.events.put
        )
        self.ask(self.fetcher.start)

    def ask(self, call: Callable[[], Any]) -> Any:
        async def on_loop() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self.ask(self.fetcher.stop)
        self.ask(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture(params=[ThreadRig, LoopRig], ids=["thread", "loop"])
def rig(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    one = request.param(server.url)
    yield one
    one.close()


def fetch(rig: Any, *fetches: FetchManifest | FetchArtifact) -> list[Any]:
    for one in fetches:
        rig.ask(lambda one=one: rig.fetcher.submit(one))
    return [rig.events.get(timeout=PATIENCE_S) for _ in fetches]


def test_manifest_and_artifact_come_in_the_order_asked_and_are_stored(rig: Any) -> None:
    first, second = fetch(rig, FetchManifest("main", OFFER), FetchArtifact("main", OFFER))
    assert first == ManifestFetched("main", OFFER.manifest_digest, MANIFEST, INVENTORY, False)
    assert second == ArtifactFetched("main", OFFER.manifest_digest)
    assert rig.disk.read(manifest_path(OFFER.manifest_digest)) == MANIFEST.canonical()
    rig.disk.sync_directory("")  # as a save of the journal does, beside `models`
    assert rig.disk.durable(model_path(OFFER.manifest_digest)) == MODEL


def test_what_is_on_disk_costs_no_request(rig: Any, server: Server) -> None:
    fetch(rig, FetchManifest("main", OFFER), FetchArtifact("main", OFFER))
    asked = len(server.asked)
    first, second = fetch(rig, FetchManifest("main", OFFER), FetchArtifact("main", OFFER))
    assert first.artifact_on_disk
    assert isinstance(second, ArtifactFetched)
    assert len(server.asked) == asked


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_cut_download_waits_and_is_resumed(rig: Any, server: Server, honours_range: bool) -> None:
    server.cut_after = 1000
    (failed,) = fetch(rig, FetchArtifact("main", OFFER))
    assert failed.problem is FetchProblem.WAIT
    assert rig.disk.size(part_path(OFFER.artifact_digest)) == 1000
    server.honours_range = honours_range
    assert fetch(rig, FetchArtifact("main", OFFER)) == [
        ArtifactFetched("main", OFFER.manifest_digest)
    ]
    assert server.asked[-1] == "bytes=1000-"
    assert rig.disk.read(model_path(OFFER.manifest_digest)) == MODEL


@pytest.mark.parametrize("length", ["chunked", "that of the connection"])
def test_answers_that_state_no_length_are_read_too(rig: Any, server: Server, length: str) -> None:
    server.length = length
    first, second = fetch(rig, FetchManifest("main", OFFER), FetchArtifact("main", OFFER))
    assert isinstance(first, ManifestFetched)
    assert isinstance(second, ArtifactFetched)
    assert rig.disk.read(model_path(OFFER.manifest_digest)) == MODEL


def test_wrong_bytes_are_corrupt_and_leave_nothing(rig: Any, server: Server) -> None:
    server.contents[OFFER.artifact_digest] = MODEL[:-1] + b"?"
    (failed,) = fetch(rig, FetchArtifact("main", OFFER))
    assert failed.problem is FetchProblem.CORRUPT
    assert "digest" in failed.detail
    assert rig.disk.size(part_path(OFFER.artifact_digest)) is None


def test_more_bytes_than_offered_are_corrupt(rig: Any, server: Server) -> None:
    server.contents[OFFER.artifact_digest] = MODEL + b"more"
    (failed,) = fetch(rig, FetchArtifact("main", OFFER))
    assert failed.problem is FetchProblem.CORRUPT


def test_an_unknown_artifact_waits_and_names_it(rig: Any, server: Server) -> None:
    del server.contents[OFFER.artifact_digest]
    (failed,) = fetch(rig, FetchArtifact("main", OFFER))
    assert failed.problem is FetchProblem.WAIT
    assert OFFER.artifact_digest in failed.detail
    assert "404" in failed.detail


def test_a_server_that_is_gone_waits_and_comes_back(rig: Any, server: Server) -> None:
    content = server.contents.pop(OFFER.manifest_digest)
    fetch(rig, FetchManifest("main", OFFER))
    server.contents[OFFER.manifest_digest] = content
    assert isinstance(fetch(rig, FetchManifest("main", OFFER))[0], ManifestFetched)
    server.close()
    (failed,) = fetch(rig, FetchArtifact("main", OFFER))
    assert failed.problem is FetchProblem.WAIT


def test_a_manifest_that_is_none_is_unusable(rig: Any, server: Server) -> None:
    document = b'{"no": "manifest"}'
    digest = hashlib.sha256(document).hexdigest()
    server.contents[digest] = document
    offer = OFFER.model_copy(
        update={"manifest_digest": digest, "manifest_size_bytes": len(document)}
    )
    (failed,) = fetch(rig, FetchManifest("main", offer))
    assert failed.problem is FetchProblem.UNUSABLE


def test_what_is_no_longer_kept_is_given_up_with_one_event(rig: Any, server: Server) -> None:
    server.held.clear()
    rig.ask(lambda: rig.fetcher.submit(FetchArtifact("main", OFFER)))
    rig.ask(lambda: rig.fetcher.keep(frozenset()))
    server.held.set()
    failed = rig.events.get(timeout=PATIENCE_S)
    assert isinstance(failed, FetchFailed)
    assert failed.problem is FetchProblem.WAIT
    assert "no longer wanted" in failed.detail
    assert rig.events.empty()
