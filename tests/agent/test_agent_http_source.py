"""The HTTP adapter's own promises: TLS and its clock in words, proxies, the time that is heard."""

import base64
import hashlib
import http.server
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from edgeloop_agent.core.rate_watch import RateWatch
from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_agent.shell import http_source
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_agent.shell.proxies import proxy_for

CONTENT = b"artifact" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list = []  # noqa: RUF012 - a class for each server

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        if self.path.endswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def serve(context=None):
        handler = type("H", (Handler,), {"seen": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        handler.port = server.server_address[1]
        return handler

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def read(source, digest=DIGEST):
    with source.open(digest, 0) as chunks:
        return b"".join(chunks)


def certificate(directory, begins, ends):
    """Self-signed, for 127.0.0.1, valid between two dates (YYMMDD)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")
    key, request, cert = (str(directory / name) for name in ("key.pem", "csr.pem", "cert.pem"))
    configuration = directory / "openssl.cnf"
    configuration.write_text(
        "[req]\ndistinguished_name=dn\n[dn]\n[ca]\ndefault_ca=it\n[it]\n"
        f"database={directory}/index\nnew_certs_dir={directory}\nserial={directory}/serial\n"
        "default_md=sha256\npolicy=any\nx509_extensions=ext\n[any]\ncommonName=supplied\n"
        "[ext]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:true\n"
    )
    (directory / "index").write_text("")
    (directory / "serial").write_text("01\n")
    run = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    subprocess.run(
        [*run, "-config", configuration, "-keyout", key, "-out", request],
        check=True,
        capture_output=True,
    )
    ca = ["openssl", "ca", "-batch", "-selfsign", "-config", configuration, "-keyfile", key]
    dates = ["-startdate", f"{begins}000000Z", "-enddate", f"{ends}000000Z"]
    subprocess.run([*ca, "-in", request, "-out", cert, *dates], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        ("200101", "490101", None),
        ("480101", "490101", "not valid yet, says this device's clock.*: set the clock"),
        ("000101", "010101", "has expired, says this device's clock"),
    ],
)
def test_tls_and_what_the_clock_has_to_do_with_it(
    serve, tmp_path, monkeypatch, begins, ends, words
):
    context, cert = certificate(tmp_path, begins, ends)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    source = HttpArtifactSource(f"https://127.0.0.1:{serve(context).port}")
    if words is None:
        assert read(source) == CONTENT
        return
    with pytest.raises(FetchUnreachableError, match=words):
        read(source)


def test_a_certificate_that_nobody_vouches_for(serve, tmp_path):
    context, _ = certificate(tmp_path, "200101", "490101")
    with pytest.raises(FetchUnreachableError, match="is not trusted: self"):
        read(HttpArtifactSource(f"https://127.0.0.1:{serve(context).port}"))


def test_the_controllers_time_is_heard(serve):
    heard = []
    read(HttpArtifactSource(f"http://127.0.0.1:{serve().port}", heard.append))
    (said_s,) = heard
    assert abs(said_s - time.time()) < 5


def test_redirects_are_not_followed(serve):
    with pytest.raises(FetchUnreachableError, match="answered 302"):
        read(HttpArtifactSource(f"http://127.0.0.1:{serve().port}"), "elsewhere")


def test_a_proxy_is_asked_for_the_whole_url(serve, monkeypatch):
    proxy = serve()
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
    assert read(HttpArtifactSource("http://controller.invalid:8080")) == CONTENT
    path, headers = proxy.seen[0]
    assert path == f"http://controller.invalid:8080/v1/artifacts/{DIGEST}"
    assert headers["Host"] == "controller.invalid:8080"
    assert base64.b64decode(headers["Proxy-Authorization"].removeprefix("Basic ")) == b"me:p@ss"


def test_tls_goes_through_a_proxy_by_a_tunnel(monkeypatch):
    asked = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Tunnel) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.server_address[1]}")
        with pytest.raises(FetchUnreachableError, match="403"):
            read(HttpArtifactSource("https://controller.invalid"))
    assert asked[0].startswith(b"CONNECT controller.invalid:443 ")


def test_hosts_that_need_no_proxy_and_a_proxy_that_is_none(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "controller.lan")
    assert proxy_for("http", "controller.lan") is None
    assert proxy_for("https", "elsewhere") is None
    assert proxy_for("http", "elsewhere").port == 1
    monkeypatch.setenv("http_proxy", "http://")
    with pytest.raises(FetchUnreachableError, match="names no host"):
        read(HttpArtifactSource("http://elsewhere"))


def test_what_goes_wrong_at_the_reader_passes_through(serve):
    source = HttpArtifactSource(f"http://127.0.0.1:{serve().port}")

    def write(_chunk):
        raise OSError(28, "No space left on device")

    def download():
        with source.open(DIGEST, 0) as chunks:
            write(next(chunks))

    with pytest.raises(OSError, match="No space"):
        download()


@pytest.mark.parametrize("url", ["http://[", "http://x:99999999", "http://a b"])
def test_an_url_that_is_none_is_said(url):
    with pytest.raises(FetchUnreachableError):
        read(HttpArtifactSource(url))


def test_headers_that_drip_are_cut_off(monkeypatch):
    """A byte now and then is no silence: the read's timeout alone would wait for ever."""
    monkeypatch.setattr(http_source, "HEADERS_TIMEOUT_S", 0.3)
    listening = socket.create_server(("127.0.0.1", 0))

    def drip():
        link, _ = listening.accept()
        with link, suppress(OSError):
            link.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                link.sendall(b"a")
                time.sleep(0.02)

    threading.Thread(target=drip, daemon=True).start()
    began = time.monotonic()
    with listening, pytest.raises(FetchUnreachableError, match="no whole answer within"):
        read(HttpArtifactSource(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    assert time.monotonic() - began < 5.0


def test_a_rate_is_watched_over_the_time_that_the_other_end_took():
    watch = RateWatch()
    assert not any(watch.is_too_slow(256, 1.0) for _ in range(200))
    waits = [watch.is_too_slow(100, 1.0) for _ in range(120)]
    assert waits.count(True) == 2, "once a window"
    assert not any(watch.is_too_slow(1, 0.0) for _ in range(1000)), "its own waits do not count"
