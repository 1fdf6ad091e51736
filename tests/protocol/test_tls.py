"""TLS to a real broker, and what is said of each way in which it does not come about."""

import socket
import threading
import time

import pytest

from edgeloop_protocol.config import Config, load_config
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls import FreshContext, TlsFileError, client_context
from edgeloop_protocol.tls_config import TlsConfig

PATIENCE_S = 20


class Listener:
    def __init__(self):
        self.heard = threading.Event()
        self.reasons, self.messages = [], []
        self.is_connected = threading.Event()
        self.got = threading.Event()

    def connected(self):
        self.is_connected.set()
        self.heard.set()

    def disconnected(self, reason):
        self.is_connected.clear()
        self.reasons.append(reason)
        self.heard.set()

    def message(self, topic, payload):
        self.messages.append(payload)
        self.got.set()


@pytest.fixture
def connect():
    started = []

    def connect(port, tls, host="127.0.0.1"):
        broker, listener = PahoBroker(BrokerAddress(host, port, tls=tls), "d", ("t",)), Listener()
        started.append(broker)
        broker.start(listener)
        return broker, listener

    yield connect
    for broker in started:
        broker.stop()


def refused(connect, port, tls, **more):
    """What is said, to the listener and to the doctor."""
    broker, listener = connect(port, tls, **more)
    assert listener.heard.wait(PATIENCE_S)
    assert not listener.is_connected.is_set()
    problem = broker.tls_problem
    assert problem is not None, listener.reasons
    assert str(problem) in listener.reasons[0]
    assert problem.mend
    return problem


def of(authority, certificate=None):
    shown = {} if certificate is None else {"certificate_path": certificate[0]}
    if certificate is not None and certificate[1] is not None:
        shown["key_path"] = certificate[1]
    return TlsConfig(ca_path=authority.certificate if authority else None, **shown)


def test_messages_go_over_tls_and_the_broker_knows_who_asks(connect, make_authority, tls_mosquitto):
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    client, listener = connect(broker.port, of(authority, authority.issue("device")))
    assert listener.is_connected.wait(PATIENCE_S)
    assert client.publish("t", b"hello")
    assert listener.got.wait(PATIENCE_S)
    assert listener.messages == [b"hello"]
    assert client.tls_problem is None


def test_certificate_and_key_may_stand_in_one_file(connect, make_authority, tls_mosquitto):
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    certificate, key = authority.issue("device")
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    _, listener = connect(broker.port, of(authority, (certificate, None)))
    assert listener.is_connected.wait(PATIENCE_S)


def test_a_name_that_is_only_the_way_there(connect, make_authority, tls_mosquitto):
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker", names="DNS:broker.plant"))
    problem = refused(connect, broker.port, of(authority))
    assert "for another name" in problem.words
    assert "server_name" in problem.mend
    named = of(authority).model_copy(update={"server_name": "broker.plant"})
    _, listener = connect(broker.port, named)
    assert listener.is_connected.wait(PATIENCE_S)


def test_an_authority_that_is_not_the_brokers(connect, make_authority, tls_mosquitto):
    broker = tls_mosquitto(make_authority().issue("broker"))
    problem = refused(connect, broker.port, of(make_authority("other")))
    assert "nobody trusted here vouches for the broker's certificate" in problem.words
    assert "tls.ca_path" in problem.mend


def test_a_brokers_certificate_that_has_expired(connect, make_authority, tls_mosquitto):
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker", days=-1))
    problem = refused(connect, broker.port, of(authority))
    assert "has expired, says the clock here, which stands at 20" in problem.words


def test_the_plain_port_spoken_to_with_tls(connect, make_authority, mosquitto):
    problem = refused(connect, mosquitto.port, of(make_authority()))
    assert "plain port" in problem.mend
    assert "8883" in problem.mend


def test_what_speaks_something_else(connect, make_authority):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            peer, _ = server.accept()
            peer.sendall(b"220 mail ready\r\n")
            peer.recv(1)

        threading.Thread(target=greet, daemon=True).start()
        problem = refused(connect, server.getsockname()[1], of(make_authority()))
    assert problem.words == "what answers there speaks no TLS"


@pytest.mark.parametrize(
    ("shows", "words"),
    [
        ("nothing", "wants a certificate of this client"),
        ("expired", "has expired"),
        ("a stranger's", "does not accept the certificate"),
    ],
)
def test_a_client_that_the_broker_refuses(connect, make_authority, tls_mosquitto, shows, words):
    """Since TLS 1.3 it hears that only after the handshake."""
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    certificate = {
        "nothing": lambda: None,
        "expired": lambda: authority.issue("device", days=-1),
        "a stranger's": lambda: make_authority("other").issue("device"),
    }[shows]()
    problem = refused(connect, broker.port, of(authority, certificate))
    assert words in problem.words


def test_a_renewed_certificate_is_used_without_a_restart(connect, make_authority, tls_mosquitto):
    """And one that is not there yet keeps nobody from starting."""
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    certificate, key = authority.directory / "device.pem", authority.directory / "device.key"
    client, listener = connect(broker.port, of(authority, (certificate, key)))
    assert listener.heard.wait(PATIENCE_S)
    assert f"tls.certificate_path: {certificate} does not exist" in listener.reasons[0]
    authority.issue("device", days=-1)
    deadline = time.monotonic() + PATIENCE_S
    while "expired" not in listener.reasons[-1] and time.monotonic() < deadline:
        time.sleep(0.02)
    authority.issue("device")
    assert listener.is_connected.wait(2 * PATIENCE_S)
    assert client.tls_problem is None


# ---- files --------------------------------------------------------------------------------------


def problem_of_files(**paths):
    with pytest.raises(TlsFileError) as raised:
        client_context(TlsConfig(**paths))
    assert raised.value.problem.mend
    return raised.value.problem.words


def test_each_file_that_cannot_be_used_is_named(make_authority, tmp_path):
    authority = make_authority()
    certificate, key = authority.issue("device")
    other, _ = authority.issue("other")
    text = tmp_path / "text"
    text.write_text("no PEM")
    missing = tmp_path / "missing"
    assert f"ca_path: {missing} does not exist" in problem_of_files(ca_path=missing)
    assert f"ca_path: {text} holds no certificate" in problem_of_files(ca_path=text)
    assert "cannot be read by uid" in problem_of_files(ca_path=tmp_path)
    assert f"key_path: {missing} does not exist" in problem_of_files(
        certificate_path=certificate, key_path=missing
    )
    assert f"key_path: {key} is not the key of the certificate {other}" in problem_of_files(
        certificate_path=other, key_path=key
    )
    assert f"key_path: {text} holds no" in problem_of_files(
        certificate_path=certificate, key_path=text
    )
    assert f"certificate_path: {certificate} holds no certificate and key" in problem_of_files(
        certificate_path=certificate
    )


def test_an_encrypted_key_asks_nobody_for_a_password(make_authority):
    authority = make_authority()
    certificate, key = authority.issue("device")
    secret = authority.directory / "secret.key"
    authority._run("ec", "-in", key, "-out", secret, "-aes128", "-passout", "pass:x")
    words = problem_of_files(certificate_path=certificate, key_path=secret)
    assert f"key_path: {secret} is encrypted" in words


class Document(Config):
    tls: TlsConfig | None = None


def test_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it.toml"
    path.write_text('tls = { ca_path = "ca.pem", server_name = "b" }')
    assert load_config(Document, path, {}).tls.ca_path == tmp_path / "ca.pem"
    path.write_text("tls = {}")
    assert load_config(Document, path, {}).tls == TlsConfig()
    path.write_text('tls = { key_path = "it.key" }')
    with pytest.raises(ConfigError, match="key_path is given without certificate_path"):
        load_config(Document, path, {})


def test_a_context_for_each_connection_verifies_names():
    assert FreshContext(TlsConfig()).check_hostname
    assert client_context(TlsConfig()).check_hostname
