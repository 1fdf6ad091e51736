"""TLS of the controller's listener, and the authority that others give it."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from device_keys import DeviceKey
from pydantic import ValidationError

from edgeloop_controller.api.app import create_app
from edgeloop_controller.api.peer import PeerProtocol
from edgeloop_controller.ca.authority import Authority, key_pem, new_key
from edgeloop_controller.ca.config import CaConfig
from edgeloop_controller.config import ControllerConfig, HttpConfig
from edgeloop_controller.errors import StartError
from edgeloop_controller.http_tls import HttpTls, listening_tls

DAY_S = 86_400.0
NOTHING = "/v1/artifacts/" + "0" * 64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": "0.0.0.0"}, "add a table [http.tls], or set plain = true"),
        ({"host": "controller.lan"}, "not loopback"),
        ({"host": "::"}, "not loopback"),
        ({"host": "0.0.0.0", "tls": {}}, "is no name"),
        ({"tls": {}, "plain": True}, "contradict"),
        ({"tls": {"key_path": "x"}}, "or neither"),
    ],
)
def test_what_is_not_safe_is_refused_at_the_start(given: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("[", r"\[")):
        HttpConfig.model_validate(given)


def test_what_is_safe_or_said_to_be() -> None:
    for given in (
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "0.0.0.0", "plain": True},
        {"host": "0.0.0.0", "tls": {"names": ["controller.lan"]}},
        {"host": "0.0.0.0", "tls": {"certificate_path": "c", "key_path": "k"}},
    ):
        HttpConfig.model_validate(given)


@pytest.fixture
def config(tmp_path: Path) -> ControllerConfig:
    return ControllerConfig.model_validate({"data_dir": tmp_path, "http": {"tls": {}}})


@pytest.fixture
def tls(config: ControllerConfig, controller: Any) -> HttpTls:
    controller.clock.jump_wall(time.time())
    authority = controller.parts.services.enrolment.open_authority()
    assert config.http.tls is not None
    return listening_tls(config.http, config.http.tls, config.ca_dir, authority, time.time())


@pytest.fixture
def https(
    controller: Any, tls: HttpTls, free_port: Callable[[], int], wait_until: Any
) -> Iterator[str]:
    app, port = create_app(controller.parts.services), free_port()
    settings = uvicorn.Config(app, port=port, log_config=None, http=PeerProtocol, lifespan="off")
    settings.load()
    settings.ssl = tls.context
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"https://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def enrolled(controller: Any, tmp_path: Path) -> Callable[[str], tuple[Path, str]]:
    """The file of a device's key and certificate, and the certificate's serial."""

    def enrol(device_id: str) -> tuple[Path, str]:
        enrolment, key = controller.parts.services.enrolment, DeviceKey(device_id)
        token = enrolment.make_token(device_id, {}, 60.0).secret
        issued = enrolment.enrol(key.csr, token, "")
        path = tmp_path / f"{device_id}-{issued.serial[:6]}.pem"
        path.write_bytes(key.key_pem + issued.chain_pem.encode())
        return path, issued.serial

    return enrol


def client(https: str, authority: Authority, shown: Path | None = None) -> httpx.Client:
    context = ssl.create_default_context(cadata=authority.trusted_pem)
    if shown is not None:
        context.load_cert_chain(shown)
    return httpx.Client(base_url=https, verify=context, trust_env=False)


def test_artifacts_are_for_devices(controller: Any, https: str, enrolled: Any) -> None:
    enrolment = controller.parts.services.enrolment
    authority = enrolment.open_authority()
    path, serial = enrolled("dev1")
    with client(https, authority, path) as device, client(https, authority) as person:
        assert device.get(NOTHING).status_code == 404
        refused = person.get(NOTHING, headers={"x-tls-peer": "dev1", "tls_peer": serial})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
        assert person.get("/v1/devices").status_code == 200
        _, token = controller.parts.services.people.create("ann", ["viewer"], None, "")
        shown = {"authorization": f"Bearer {token}"}
        assert person.get(NOTHING, headers=shown).status_code == 404
        assert person.get(NOTHING, headers={"authorization": "Bearer x"}).status_code == 401
        enrolment.revoke("dev1", "stolen")
        assert device.get(NOTHING).status_code == 403
        assert device.get("/v1/devices").status_code == 403
        assert person.get("/v1/devices").status_code == 200
    # A newer certificate of the same device is another matter.
    again, _ = enrolled("dev1")
    with client(https, authority, again) as device, client(https, authority, path) as thief:
        assert device.get(NOTHING).status_code == 404
        assert thief.get(NOTHING).status_code == 403


def test_only_what_our_authority_made_for_clients_is_believed(
    controller: Any, https: str, tls: HttpTls, tmp_path: Path
) -> None:
    authority, now = controller.parts.services.enrolment.open_authority(), time.time()
    stranger = Authority(tmp_path / "stranger", CaConfig(), now)

    def shown(name: str, made: Any, key: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(key_pem(key) + made.chain_pem.encode())
        return path

    key = new_key()
    life = (now - 60, now + 600)
    foreign = shown("a", stranger.issue_client("dev1", key.public_key(), *life), key)
    past = shown("b", authority.issue_client("dev1", key.public_key(), now - 99, now - 9), key)
    servers = shown("c", authority.issue_server(["dev1"], key.public_key(), *life), key)
    for path in (foreign, past, servers):
        with client(https, authority, path) as device, pytest.raises(httpx.TransportError):
            device.get("/v1/health")
    # Ours, for clients, and yet in no book: what the controller makes for its own probes.
    unknown = shown("d", authority.issue_client("dev1", key.public_key(), *life), key)
    with client(https, authority, unknown) as device:
        assert device.get(NOTHING).status_code == 403


def test_the_listeners_certificate_is_renewed_without_a_restart(
    controller: Any, https: str, tls: HttpTls
) -> None:
    authority = controller.parts.services.enrolment.open_authority()
    before = tls.certificate.read_text()
    tls.renew_if_due(authority, time.time())
    assert tls.certificate.read_text() == before
    tls.renew_if_due(authority, time.time() + 600 * DAY_S)
    assert tls.certificate.read_text() != before
    host, port = "127.0.0.1", int(https.rpartition(":")[2])
    shown = ssl.get_server_certificate((host, port))
    assert shown.strip() in tls.certificate.read_text()


def test_an_authority_of_somebody_elses(make_authority: Any, tmp_path: Path) -> None:
    root = Authority(tmp_path / "root", CaConfig(), time.time())
    config = CaConfig(
        certificate_path=tmp_path / "sub.pem",
        key_path=tmp_path / "sub.key",
        chain_path=tmp_path / "root.pem",
    )
    _make_intermediate(root, config, tmp_path)
    authority = Authority(tmp_path / "unused", config, time.time())
    assert not (tmp_path / "unused").exists()
    assert authority.trusted_pem == root.trusted_pem
    key = new_key()
    issued = authority.issue_client("dev1", key.public_key(), time.time() - 60, time.time() + 60)
    assert issued.chain_pem.count("BEGIN CERTIFICATE") == 2
    assert _verifies(tmp_path, issued.chain_pem, root.trusted_pem)
    tmp_path.joinpath("sub.key").chmod(0o644)
    with pytest.raises(StartError, match="others than its owner"):
        Authority(tmp_path / "unused", config, time.time())
    tmp_path.joinpath("sub.key").chmod(0o600)
    with pytest.raises(StartError, match="its root is not given"):
        Authority(tmp_path / "x", config.model_copy(update={"chain_path": None}), time.time())
    other = tmp_path / "other.key"
    other.touch(mode=0o600)
    other.write_bytes(key_pem(key))
    with pytest.raises(StartError, match="is not the key of"):
        Authority(tmp_path / "x", config.model_copy(update={"key_path": other}), time.time())
    other.write_text("nothing")
    with pytest.raises(StartError, match="no private key in PEM"):
        Authority(tmp_path / "x", config.model_copy(update={"key_path": other}), time.time())


def _make_intermediate(root: Authority, config: CaConfig, directory: Path) -> None:
    """By openssl, as an operator's own authority would make it."""
    import subprocess

    assert config.certificate_path is not None
    assert config.key_path is not None
    assert config.chain_path is not None
    config.chain_path.write_text(root.trusted_pem)
    config.key_path.touch(mode=0o600)
    extensions = directory / "ext"
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign,cRLSign\n"
    )
    request = directory / "sub.csr"

    def run(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-new", *curve, "-subj", "/CN=sub", "-keyout", config.key_path, "-out", request)
    signer = directory / "big"
    run(
        *("req", "-x509", *curve, "-subj", "/CN=Big Root", "-days", "99"),
        *("-keyout", f"{signer}.key", "-out", f"{signer}.pem"),
    )
    run(
        *("x509", "-req", "-in", request, "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key"),
        *("-CAcreateserial", "-days", "90", "-extfile", extensions),
        *("-out", config.certificate_path),
    )
    config.chain_path.write_text(Path(f"{signer}.pem").read_text())
    root.trusted_pem = config.chain_path.read_text()


def _verifies(directory: Path, chain_pem: str, root_pem: str) -> bool:
    import subprocess

    (directory / "chain").write_text(chain_pem)
    (directory / "trusted").write_text(root_pem)
    command = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", directory / "trusted"]
    command += ["-untrusted", directory / "chain", directory / "chain"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
