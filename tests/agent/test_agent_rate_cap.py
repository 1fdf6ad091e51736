"""The cap of downloads: what the bucket grants in any interval, and what it is over real HTTP."""

import http.server
import queue
import socket
import threading
import time
from http.client import HTTPConnection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import FetchArtifact, FetchManifest
from edgeloop_agent.core.events import ArtifactFetched, FetchFailed, FetchProblem
from edgeloop_agent.core.rate_cap import BURST_MIN_BYTES, RateCap
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_agent.shell.live_reload import LiveReload
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.paced_reads import RECEIVE_BUFFER_BYTES, PacedReads
from edgeloop_protocol.limits import KIB, MIB
from edgeloop_simulators.twins.clock import SimulatedClock
from edgeloop_simulators.twins.disk import MemoryDisk

PATIENCE_S = 10
RATES = st.floats(1 * KIB, 1e9)
STEPS = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=60)


def taken(cap, steps):
    """Whoever reads as greedily as the link lets it: (when, how much) of each read."""
    now = 0.0
    for pause_s, share in steps:
        now += pause_s + cap.wait_s(now + pause_s)
        size = int(cap.granted_bytes(now) * share)
        cap.took(size)
        yield now, size


@given(RATES, STEPS)
def test_no_interval_gets_more_than_rate_times_its_length_and_one_burst(rate, steps):
    cap = RateCap(rate, 0.0)
    reads = list(taken(cap, steps))
    for first in range(len(reads)):
        total = 0
        for at, size in reads[first:]:
            total += size
            bound = rate * (at - reads[first][0]) + cap.burst_bytes
            assert total <= bound * (1 + 1e-9) + 1


@given(RATES, st.integers(1, 200))
def test_a_greedy_reader_gets_the_whole_rate_and_no_wait_is_for_nothing(rate, reads):
    cap, now, total = RateCap(rate, 0.0), 0.0, 0
    for _ in range(reads):
        now += cap.wait_s(now)
        size = cap.granted_bytes(now)
        assert size >= cap.read_bytes - 1, "a wait is worth its wake"
        cap.took(size)
        total += size
    assert total >= rate * now - 1


@given(st.lists(st.tuples(st.floats(0, 10), st.one_of(st.just(0.0), RATES)), max_size=30))
def test_a_new_rate_grants_nothing_for_the_past(changes):
    cap, now = RateCap(0.0, 0.0), 0.0
    for passed_s, rate in changes:
        now += passed_s
        was = cap.bytes_per_s
        cap.use(rate, now)
        if rate:
            before = 0 if not was else max(BURST_MIN_BYTES, was / 4)
            assert cap.granted_bytes(now) <= min(before, cap.burst_bytes)
        cap.took(cap.granted_bytes(now))


def test_without_a_cap_nothing_waits():
    cap = RateCap(0.0, 5.0)
    for _ in range(1000):
        cap.took(cap.granted_bytes(5.0))
        assert cap.wait_s(5.0) == 0
    assert cap.granted_bytes(5.0) == 64 * KIB


def config(**limits):
    return AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": "/tmp/state",
            "controller_url": "http://127.0.0.1:1",
            "slots": {"main": {"source": {"kind": "socket", "path": "/run/a.sock"}}},
            "limits": limits,
        }
    )


def test_the_configuration_names_it_and_refuses_what_never_arrives():
    assert config().limits.download_bytes_per_s_max == 0
    assert config(download_bytes_per_s_max=1024).limits.download_bytes_per_s_max == 1024
    with pytest.raises(ValueError, match="at least 1024 bytes a second, or 0: no cap"):
        config(download_bytes_per_s_max=1)


class FakeWait:
    """Time passes only where the reader waits for its cap: how long that took is exact."""

    def __init__(self):
        self.clock = SimulatedClock()
        self.waits = 0

    def __call__(self, seconds):
        self.waits += 1
        self.clock.advance(seconds)


def paced(fake, rate):
    return PacedReads(rate, fake.clock, fake)


def fetched(source, *fetches):
    """What a real download thread makes of it."""
    answers = queue.Queue()
    downloader = Downloader(source, ModelStore(MemoryDisk()), 0)
    worker = FetchWorker(downloader, lambda: None, answers.put)
    worker.start()
    for fetch in fetches:
        worker.submit(fetch)
    events = [answers.get(timeout=PATIENCE_S) for _ in fetches]
    worker.stop()
    return events


@pytest.mark.parametrize("rate", [20_000.0, 1_000_000.0])
def test_manifest_and_artifact_share_one_cap(artifact_server, make_package, rate):
    package = make_package("1", model=bytes(200_000))
    artifact_server.publish(package)
    fake, offer = FakeWait(), package.offer
    source = HttpArtifactSource(artifact_server.url, pace=paced(fake, rate))
    *_, last = fetched(source, FetchManifest("main", offer), FetchArtifact("main", offer))
    assert last == ArtifactFetched("main", offer.manifest_digest)
    size = offer.manifest_size_bytes + offer.artifact_size_bytes
    burst = RateCap(rate, 0).burst_bytes
    took_s = fake.clock.monotonic()
    assert size - burst <= rate * took_s <= size
    assert fake.waits <= 2 + size / RateCap(rate, 0).read_bytes


def test_a_wait_for_the_cap_is_no_silence_of_the_link(artifact_server, make_package, monkeypatch):
    """However slow the cap, the link's timeout does not run while nobody reads."""
    monkeypatch.setattr("edgeloop_agent.shell.http_source.READ_TIMEOUT_S", 0.2)
    package = make_package("1", model=bytes(20_000))
    artifact_server.publish(package)
    clock, late = SimulatedClock(), []

    def wait(seconds):
        clock.advance(seconds)
        if len(late) < 2:
            late.append(time.sleep(0.3))  # longer than the link may be silent

    source = HttpArtifactSource(artifact_server.url, pace=PacedReads(2000, clock, wait))
    (event,) = fetched(source, FetchArtifact("main", package.offer))
    assert isinstance(event, ArtifactFetched)
    assert len(late) == 2


class GreedySender:
    """Sends as much as it is allowed to, and knows how much that was."""

    def __init__(self):
        self.sent = 0
        self.blocked = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._send, daemon=True).start()

    def _send(self):
        peer, _ = self.socket.accept()
        with peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * KIB)
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            peer.settimeout(0.5)
            try:
                while True:
                    self.sent += peer.send(bytes(64 * KIB))
            except OSError:
                self.blocked.set()


def held_for(pace):
    """What is underway, or held on the device, when nothing is read any more."""
    sender, got = GreedySender(), 0
    with HttpArtifactSource(sender.url, pace=pace).open("0" * 64, 0) as chunks:
        while got < 6 * MIB:
            got += len(next(chunks))
        assert sender.blocked.wait(PATIENCE_S), "the sender was never held up"
    sender.socket.close()
    return sender.sent - got


def test_what_is_not_read_stays_with_the_sender():
    """TCP's own backpressure: a capped device holds a small buffer, whatever is sent to it."""
    assert held_for(paced(FakeWait(), 100_000)) < 512 * KIB


@pytest.mark.parametrize("rate", [0, 100_000])
def test_the_sockets_buffer_is_bounded_by_us_where_there_is_a_cap(
    artifact_server, make_package, monkeypatch, rate
):
    sizes = []

    class Connection(HTTPConnection):
        def request(self, *args, **more):
            sizes.append(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
            super().request(*args, **more)

    monkeypatch.setattr("edgeloop_agent.shell.http_source.HTTPConnection", Connection)
    package = make_package("1")
    artifact_server.publish(package)
    source = HttpArtifactSource(artifact_server.url, pace=paced(FakeWait(), rate))
    fetched(source, FetchArtifact("main", package.offer))
    doubled = 2 * RECEIVE_BUFFER_BYTES  # by Linux, which counts what a segment costs it
    assert (sizes == [doubled]) is bool(rate)


def test_the_buffer_is_small_where_the_cap_is_and_the_kernels_where_it_is_not():
    assert PacedReads(0).receive_buffer_bytes() is None
    assert PacedReads(1024).receive_buffer_bytes() == RECEIVE_BUFFER_BYTES
    assert PacedReads(2 * RECEIVE_BUFFER_BYTES).receive_buffer_bytes() == RECEIVE_BUFFER_BYTES
    assert PacedReads(10_000_000).receive_buffer_bytes() is None, "it would be a cap of its own"


@pytest.fixture
def endless(make_package):
    """A real worker that waits for its cap for hours: an artifact of 4 MiB at 1 KiB a second."""
    package = make_package("1", model=bytes(4 * MIB))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(4 * MIB))
            self.end_headers()
            self.wfile.write(bytes(4 * MIB))

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            """A reader that goes away is what is asked for here."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    waiting = threading.Event()

    class Pace(PacedReads):
        def __init__(self):
            super().__init__(1024)
            self._wait = self._really_wait

        def _really_wait(self, _seconds):
            """For ever, unless woken: nothing here is measured by a clock."""
            waiting.set()
            assert self._woken.wait(PATIENCE_S), "nobody woke it"

    pace, answers = Pace(), queue.Queue()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    downloader = Downloader(HttpArtifactSource(url, pace=pace), ModelStore(MemoryDisk()), 0)
    worker = FetchWorker(downloader, lambda: None, answers.put, pace.wake)
    worker.start()
    worker.submit(FetchArtifact("main", package.offer))
    assert waiting.wait(PATIENCE_S)
    yield worker, pace, answers
    worker.stop()
    server.shutdown()
    server.server_close()


def given_up(answers):
    event = answers.get(timeout=PATIENCE_S)
    assert isinstance(event, FetchFailed)
    assert event.problem is FetchProblem.WAIT
    return event.detail


def test_a_withdrawn_offer_is_given_up_in_the_middle_of_a_wait(endless):
    worker, _, answers = endless
    worker.keep(frozenset())
    assert given_up(answers) == "no longer wanted"


def test_a_stop_ends_a_wait(endless):
    worker, _, answers = endless
    worker.stop()
    assert given_up(answers) == "no longer wanted"
    assert not worker._thread.is_alive()


def test_a_changed_cap_holds_at_once_in_the_middle_of_a_download(endless):
    """By SIGHUP's own way: plan, then whoever follows the configuration."""
    _, pace, answers = endless
    said = []
    parts = Parts(config(download_bytes_per_s_max=1024), said)
    LiveReload(
        Supervisor(parts), parts, lambda it: pace.use(it.limits.download_bytes_per_s_max), config
    )()
    assert said == [("config_reloaded", "changed: limits.download_bytes_per_s_max")]
    assert isinstance(answers.get(timeout=PATIENCE_S), ArtifactFetched)


class Parts:
    def __init__(self, now, said):
        self.config = now
        self.telemetry = self
        self.event = lambda name, detail: said.append((name, detail))


class Supervisor:
    def __init__(self, parts):
        self._parts = parts

    def reconfigure(self, new, restart_slots):
        assert not restart_slots
        self._parts.config = new


def test_a_manifest_too_can_be_given_up(artifact_server, make_package):
    package = make_package("1")
    artifact_server.publish(package)
    downloader = Downloader(HttpArtifactSource(artifact_server.url), ModelStore(MemoryDisk()), 0)
    assert downloader.manifest(package.offer)
    again = Downloader(HttpArtifactSource(artifact_server.url), ModelStore(MemoryDisk()), 0)
    with pytest.raises(Exception, match="no longer wanted"):
        again.manifest(package.offer, lambda: True)
