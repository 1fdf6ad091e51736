"""The Trust port's contract, on the child process over HTTP and on the twin; the child's own."""

import http.server
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_agent_http_source import certificate
from trust_repository import NOW, TOP, Repository

from edgeloop_agent.core.trust import Target
from edgeloop_agent.errors import TrustUnavailableError
from edgeloop_agent.shell import trust_process
from edgeloop_agent.shell.trust_process import TrustProcess
from edgeloop_agent.trust.main import MEMORY_MAX_BYTES
from edgeloop_protocol.tls_config import TlsConfig
from edgeloop_simulators.twins.clock import SimulatedClock
from edgeloop_simulators.twins.trust import MemoryTrust

CUSTOM = {"edgeloop": {"model": "m"}}
CONTENT = b"content"
SHA256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


class HttpMirror:
    """Serves a repository's files; `drip_s` seconds pass before each."""

    def __init__(self, files, context=None):
        self.files, self.asked, self.drip_s = files, [], 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(outer.drip_s)
                outer.asked.append(self.path)
                content = outer.files.get(self.path.removeprefix("/metadata/"))
                with suppress(OSError):  # whoever asked may have been ended
                    self.send_response(404 if content is None else 200)
                    self.send_header("Content-Length", str(len(content or b"")))
                    self.end_headers()
                    self.wfile.write(content or b"")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/metadata"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def clock():
    clock = SimulatedClock()
    clock.wall = NOW.timestamp
    return clock


@pytest.fixture
def process(tmp_path, clock):
    repository = Repository()
    mirror = HttpMirror(repository.files)
    root = tmp_path / "root.json"
    root.write_bytes(repository.files["1.root.json"])

    def trust(timeout_s=60.0):
        return TrustProcess(tmp_path / "trust", root, mirror.url, clock, timeout_s)

    def add(name):
        repository.add(name, CONTENT, custom=CUSTOM)
        repository.publish(*TOP)

    yield SimpleNamespace(
        trust=trust(),
        with_timeout=trust,
        add=add,
        spoil=mirror.files.clear,
        mirror=mirror,
        repository=repository,
        root=root,
        directory=tmp_path / "trust",
    )
    mirror.close()


@pytest.fixture
def memory():
    trust = MemoryTrust({})

    def add(name):
        trust.targets[name] = Target(len(CONTENT), {"sha256": SHA256}, CUSTOM)

    def spoil():
        trust.problem = "as the test wants it"

    return SimpleNamespace(trust=trust, add=add, spoil=spoil)


@pytest.fixture(params=["process", "memory"])
def rig(request):
    return request.getfixturevalue(request.param)


def test_what_is_listed_is_found_and_nothing_else(rig):
    rig.add("m/1/manifest")
    listed = rig.trust.look_up(["m/1/manifest", "m/2/manifest"])
    assert listed == {"m/1/manifest": Target(len(CONTENT), {"sha256": SHA256}, CUSTOM)}


def test_each_look_up_is_of_the_newest(rig):
    assert rig.trust.look_up(["m/1/manifest"]) == {}
    rig.add("m/1/manifest")
    assert set(rig.trust.look_up(["m/1/manifest"])) == {"m/1/manifest"}


def test_without_metadata_it_says_why(rig):
    rig.add("m/1/manifest")
    rig.spoil()
    with pytest.raises(TrustUnavailableError, match=r"^metadata: .+"):
        rig.trust.look_up(["m/1/manifest"])


# the child process alone


def test_metadata_is_kept_between_look_ups(process):
    process.trust.look_up([])
    process.mirror.asked.clear()
    process.trust.look_up([])
    assert [path.rpartition("/")[2] for path in process.mirror.asked] == [
        "2.root.json",
        "timestamp.json",
    ]


def test_expiry_is_by_the_given_clock(process, clock):
    clock.wall = lambda: NOW.timestamp() + 40 * 86_400
    with pytest.raises(TrustUnavailableError, match=r"root: it expired .* stands at 2027-01-10"):
        process.trust.look_up([])


def test_metadata_over_tls_both_ends_known(process, clock, tmp_path):
    """The controller's authority is a private one, and it asks for the device's certificate."""
    context, cert = certificate(tmp_path, "200101", "490101")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cert)
    mirror = HttpMirror(process.repository.files, context)

    def look_up(tls):
        store = tmp_path / "over-tls"
        TrustProcess(store, process.root, mirror.url, clock, 60.0, tls).look_up([])

    try:
        with pytest.raises(TrustUnavailableError, match="certificate is not trusted"):
            look_up(None)
        with pytest.raises(TrustUnavailableError, match=r"https://.*"):
            look_up(TlsConfig(ca_path=cert))
        with pytest.raises(TrustUnavailableError, match="the files for TLS cannot be used"):
            look_up(TlsConfig(ca_path=tmp_path / "none.pem"))
        look_up(TlsConfig(ca_path=cert, certificate_path=cert, key_path=tmp_path / "key.pem"))
    finally:
        mirror.close()


def test_a_root_that_is_not_there_is_named(process):
    process.root.unlink()
    with pytest.raises(TrustUnavailableError, match=r"root\.json cannot be read: .*No such file"):
        process.trust.look_up([])


def test_a_store_that_takes_nothing_waits(process):
    process.directory.write_text("a file in its place")
    with pytest.raises(TrustUnavailableError, match="disk: "):
        process.trust.look_up([])


def test_a_look_up_that_takes_too_long_is_ended(process):
    process.mirror.drip_s = 1.0
    began = time.monotonic()
    with pytest.raises(TrustUnavailableError, match=r"not verified within 0\.5 s"):
        process.with_timeout(0.5).look_up([])
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no such thing')", "no such thing"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("print('{')", "{"),
        ("pass", "ended with code 0"),
    ],
)
def test_a_verifier_that_fails_is_a_wait_in_words(process, monkeypatch, tmp_path, program, words):
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(trust_process.sys, "executable", str(interpreter))
    with pytest.raises(TrustUnavailableError, match=words):
        process.trust.look_up([])


def test_a_verifier_that_does_not_start_is_a_wait(process, monkeypatch, tmp_path):
    monkeypatch.setattr(trust_process.sys, "executable", str(tmp_path / "none"))
    with pytest.raises(TrustUnavailableError, match="does not start"):
        process.trust.look_up([])


def test_a_document_that_takes_all_the_memory_it_may_is_verified_within_the_limit(process):
    """The worst found that fits into targets.json: a list of empty lists."""
    process.repository.targets.unrecognized_fields["x"] = [[]] * 1_600_000
    process.repository.publish(*TOP)
    assert process.trust.look_up(["m/1/manifest"]) == {}


def test_the_child_ends_with_its_supervisor(process, tmp_path):
    """A supervisor that is killed while it waits leaves no verifier behind."""
    process.mirror.drip_s = 60.0
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from edgeloop_agent.shell.trust_process import TrustProcess;"
            "from edgeloop_protocol.clock import SystemClock;"
            "TrustProcess(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3],"
            " SystemClock()).look_up([])",
            *(str(process.directory), str(process.root), process.mirror.url),
        ]
    )
    child = _wait_for(lambda: _child_of(supervisor.pid))
    _wait_for(lambda: f" {MEMORY_MAX_BYTES} " in Path(f"/proc/{child}/limits").read_text())
    supervisor.kill()
    supervisor.wait()
    _wait_for(lambda: not _is_alive(child))


def _wait_for(what, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("not in time")


def _child_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return int((children.split() or ["0"])[0])


def _is_alive(pid):
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
