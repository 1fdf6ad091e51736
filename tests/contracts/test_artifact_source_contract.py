"""The ArtifactSource port's contract, on HTTP with Range, on the twin and in the virtual world."""

import http.server
import re
import threading

import pytest

from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_protocol.limits import DOWNLOAD_CHUNK_BYTES
from edgeloop_simulators.twins.artifact_source import MemoryArtifactSource
from edgeloop_simulators.virtual.device.artifact_server import ArtifactServer
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.broker_profiles import PROFILES
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import Link

BIG = bytes(range(256)) * (DOWNLOAD_CHUNK_BYTES // 100)
ARTIFACTS = {"a" * 64: BIG, "b" * 64: b"small", "c" * 64: b""}


class Handler(http.server.BaseHTTPRequestHandler):
    honours_range = True
    cut = False

    def do_GET(self):
        content = ARTIFACTS.get(self.path.removeprefix("/v1/artifacts/"))
        if content is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.honours_range else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked and self.honours_range else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + 1000] if self.cut else content[start:])
        self.close_connection = self.cut

    def log_message(self, *_):
        pass


class VirtualSource:
    """The virtual world's; whoever reads from it sleeps by letting its time pass."""

    def __init__(self, loss=0.0):
        self.loop = EventLoop()
        streams = Streams(1)
        self.network = Network(self.loop, streams, lambda _seen: None, PROFILES["ideal"])
        self.server = ArtifactServer(self.network, streams, ARTIFACTS.get, chunks_a_file=8)
        self.place = Place("dev1", link=Link(loss=loss))

    def open(self, digest, offset):
        return self.server.source(self.place, self.sleep).open(digest, offset)

    def sleep(self, delay_s):
        until_s = self.loop.now_s + delay_s
        while self.loop.step(until_s):
            pass


def test_a_capped_virtual_device_takes_as_long_as_its_cap_says():
    virtual, rate = VirtualSource(), 10_000.0
    digest, content = next(iter(ARTIFACTS.items()))
    with virtual.server.source(virtual.place, virtual.sleep, rate).open(digest, 0) as chunks:
        began_s = virtual.loop.now_s
        assert b"".join(chunks) == content
    assert virtual.loop.now_s - began_s == pytest.approx(len(content) / rate)


@pytest.fixture(params=["http", "http without range", "memory", "virtual"])
def source(request):
    if request.param == "memory":
        yield MemoryArtifactSource(ARTIFACTS)
        return
    if request.param == "virtual":
        yield VirtualSource()
        return
    handler = type("H", (Handler,), {"honours_range": request.param == "http"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made = HttpArtifactSource(f"http://127.0.0.1:{server.server_address[1]}/")
    made.handler = handler
    made.server = server
    yield made
    server.shutdown()
    server.server_close()


def read(source, digest, offset):
    with source.open(digest, offset) as chunks:
        parts = list(chunks)
    assert all(0 < len(part) <= DOWNLOAD_CHUNK_BYTES for part in parts)
    return b"".join(parts)


@pytest.mark.parametrize("offset", [0, 1, 1000, DOWNLOAD_CHUNK_BYTES, len(BIG) - 1, len(BIG)])
def test_the_bytes_from_an_offset_on(source, offset):
    assert read(source, "a" * 64, offset) == BIG[offset:]


def test_an_empty_artifact_is_empty(source):
    assert read(source, "c" * 64, 0) == b""


def test_an_unknown_artifact_is_unreachable(source):
    with pytest.raises(FetchUnreachableError, match="d" * 64):
        read(source, "d" * 64, 0)


def test_an_offset_beyond_the_end_is_unreachable(source):
    with pytest.raises(FetchUnreachableError, match="no byte 6"):
        read(source, "b" * 64, 6)


def test_a_connection_that_is_cut_gives_what_came_and_then_fails(source):
    if isinstance(source, MemoryArtifactSource):
        source.cut_after_bytes = 1000
    elif isinstance(source, VirtualSource):
        source = VirtualSource(loss=1.0)
    else:
        source.handler.cut = True
    got = []
    with pytest.raises(FetchUnreachableError), source.open("a" * 64, 0) as chunks:
        got.extend(chunks)
    came = b"".join(got)
    assert 0 < len(came) < len(BIG)
    assert came == BIG[: len(came)]


def test_nobody_there_is_unreachable(source):
    if isinstance(source, MemoryArtifactSource):
        source.reachable = False
    elif isinstance(source, VirtualSource):
        source.network.begin(Fault(kind=FaultKind.PARTITION, at_s=0.0, target="dev1"))
    else:
        source.server.shutdown()
        source.server.server_close()
    with pytest.raises(FetchUnreachableError):
        read(source, "b" * 64, 0)
