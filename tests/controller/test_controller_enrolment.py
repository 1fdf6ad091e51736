"""Enrolment over the API: tokens, the queue, renewals, rotation, revocation, what is kept."""

import stat
from base64 import encodebytes
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from device_keys import DeviceKey, csr_of, pem
from fastapi.testclient import TestClient
from sqlalchemy import select

from edgeloop_controller.api.app import create_app
from edgeloop_controller.store import identities
from edgeloop_controller.store.tables import AuditEntry, Event
from edgeloop_protocol.enrolment import renewal_at

DAY_S = 86_400.0


@pytest.fixture
def api(controller: Any) -> TestClient:
    return TestClient(create_app(controller.parts.services), base_url="http://127.0.0.1")


def made_token(api: TestClient, **asked: Any) -> str:
    answer = api.post("/v1/enrolment-tokens", json=asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def enrol(api: TestClient, key: DeviceKey, token: str | None = None, status: int = 201) -> Any:
    answer = api.post("/v1/enrolments", json={"csr": key.csr, "token": token})
    assert answer.status_code == status, answer.text
    return answer.json()


def certificate(answer: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(answer["certificate"].encode())


def enrolled(api: TestClient, device_id: str = "dev1") -> tuple[DeviceKey, str]:
    key = DeviceKey(device_id)
    return key, enrol(api, key, made_token(api, device_id=device_id))["certificate"]


def test_a_token_becomes_a_certificate_for_this_device(api: TestClient, controller: Any) -> None:
    key = DeviceKey("dev1")
    answer = enrol(api, key, made_token(api, labels={"site": "lab"}))
    made = certificate(answer)
    assert made.subject.rfc4514_string() == "CN=dev1"
    assert made.public_key() == key.key.public_key()
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(answer["authority"].encode()))
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    life = (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds()
    assert 30 * DAY_S <= life <= 30 * DAY_S + 600
    assert renewal_at(0, life) == pytest.approx(20 * DAY_S, rel=0.01)
    with controller.parts.services.database.reading() as session:
        kinds = session.scalars(select(Event.kind).order_by(Event.id)).all()
    assert kinds == ["enrolment.token_made", "device.enrolled"]


def test_a_token_is_spent_on_one_key(api: TestClient, controller: Any) -> None:
    token, first = made_token(api), DeviceKey("dev1")
    enrol(api, first, token)
    assert enrol(api, first, token)["state"] == "issued"  # the answer was lost
    assert "used already" in enrol(api, DeviceKey("dev2"), token, 403)["error"]["message"]
    late = made_token(api, lifetime_s=60)
    controller.clock.advance(61)
    assert "expired" in enrol(api, DeviceKey("dev3"), late, 403)["error"]["message"]
    enrol(api, DeviceKey("dev3"), "edgeloop-enrol-guessed", 403)
    api.delete("/v1/enrolment-tokens/1")
    enrol(api, first, token, 403)


def test_no_token_takes_over_a_device_but_one_made_for_it(api: TestClient) -> None:
    enrolled(api, "dev1")
    thief = DeviceKey("dev1")
    answer = enrol(api, thief, made_token(api), 409)
    assert "edgeloop device enroll --device dev1" in answer["error"]["hint"]
    enrol(api, thief, None, 409)
    enrol(api, thief, made_token(api, device_id="dev2"), 403)
    assert enrol(api, thief, made_token(api, device_id="dev1"))["state"] == "issued"


def test_labels_of_a_token_are_the_devices_from_its_first_hello(
    api: TestClient, controller: Any, make_device: Any
) -> None:
    enrol(api, DeviceKey("dev1"), made_token(api, labels={"site": "lab"}))
    controller.takes(make_device("dev1", labels={"site": "elsewhere"}).hello())
    assert api.get("/v1/devices/dev1").json()["labels"] == {"site": "lab"}
    controller.takes(make_device("dev2").hello())
    enrol(api, DeviceKey("dev2"), made_token(api, labels={"site": "hall"}))
    assert api.get("/v1/devices/dev2").json()["labels"] == {"site": "hall"}


def test_an_unknown_device_waits_for_a_person(api: TestClient, controller: Any) -> None:
    key = DeviceKey("dev1")
    assert enrol(api, key, status=202)["ask_again_s"] > 0
    enrol(api, key, status=202)
    (waiting,) = api.get("/v1/enrolments?state=pending").json()["items"]
    assert (waiting["device_id"], len(waiting["key"])) == ("dev1", 64)
    decision = {"approved": True, "labels": {"site": "lab"}}
    api.put(f"/v1/enrolments/{waiting['id']}/decision", json=decision).raise_for_status()
    again = api.put(f"/v1/enrolments/{waiting['id']}/decision", json=decision)
    assert again.status_code == 409
    enrol(api, DeviceKey("dev1"), status=202)  # another key is another device
    assert certificate(enrol(api, key)).public_key() == key.key.public_key()
    rejected = DeviceKey("dev2")
    enrol(api, rejected, status=202)
    api.put("/v1/enrolments/3/decision", json={"approved": False}).raise_for_status()
    assert "rejected" in enrol(api, rejected, status=403)["error"]["message"]
    enrol(api, DeviceKey("dev3"), status=202)
    controller.clock.advance(8 * DAY_S)
    enrol(api, DeviceKey("dev4"), status=202)
    pending = api.get("/v1/enrolments?state=pending").json()["items"]
    assert [one["device_id"] for one in pending] == ["dev4"]


def test_the_queue_is_bounded(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop_controller.core.enrolment.PENDING_PER_ADDRESS_MAX", 2)
    for number in range(2):
        enrol(api, DeviceKey(f"dev{number}"), status=202)
    assert "of this address" in enrol(api, DeviceKey("dev9"), status=429)["error"]["message"]
    monkeypatch.setattr("edgeloop_controller.core.enrolment.PENDING_MAX", 2)
    assert "2 devices wait" in enrol(api, DeviceKey("dev9"), status=429)["error"]["message"]
    # Who has a token does not stand in the queue.
    enrol(api, DeviceKey("dev9"), made_token(api))


def test_a_renewal_is_proved_by_the_key(api: TestClient, controller: Any) -> None:
    key, held = enrolled(api)
    controller.clock.advance(20 * DAY_S)
    answer = api.post("/v1/enrolments/renewals", json=key.renewal(held))
    assert answer.status_code == 201, answer.text
    renewed = certificate(answer.json())
    assert renewed.public_key() == key.key.public_key()
    ends = renewed.not_valid_after_utc.timestamp()
    assert ends == pytest.approx(controller.clock.wall() + 30 * DAY_S, abs=2)
    # Signed by another key; for another CSR; for another device; no certificate.
    thief = DeviceKey("dev1")
    for wrong in (
        thief.renewal(held),
        key.renewal(held) | {"csr": thief.csr},
        key.renewal(held) | {"signature": "AAAA"},
        key.renewal(held) | {"signature": "no base64"},
        DeviceKey("dev2", key.key).renewal(held),
        key.renewal("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
    ):
        refused = api.post("/v1/enrolments/renewals", json=wrong)
        assert refused.status_code in (403, 422), refused.text
    controller.clock.advance(29 * DAY_S + 30 * DAY_S)  # it ran out, and was away for a month
    late = renewed_pem = answer.json()["certificate"]
    assert api.post("/v1/enrolments/renewals", json=key.renewal(late)).status_code == 201
    controller.clock.advance(2 * DAY_S)
    assert api.post("/v1/enrolments/renewals", json=key.renewal(renewed_pem)).status_code == 403


def test_a_rotation_ends_the_old_key_once_the_new_one_is_in_use(
    api: TestClient, controller: Any
) -> None:
    enrolment = controller.parts.services.enrolment
    key, held = enrolled(api)
    serial = f"{x509.load_pem_x509_certificate(held.encode()).serial_number:x}"
    assert api.post("/v1/devices/dev1/rotation").json()["key_is_to_change"]
    same = api.post("/v1/enrolments/renewals", json=key.renewal(held))
    assert (same.status_code, "a new key" in same.json()["error"]["message"]) == (409, True)
    new = DeviceKey("dev1")
    answer = api.post("/v1/enrolments/renewals", json=key.renewal(held, new))
    newer = answer.json()["certificate"]
    assert enrolment.standing(serial) == "dev1"  # a power cut may have lost the answer
    used = api.post("/v1/enrolments/confirmations", json=new.renewal(newer))
    assert used.status_code == 200, used.text
    assert enrolment.standing(serial) is None
    assert api.post("/v1/enrolments/renewals", json=key.renewal(held)).status_code == 403
    assert api.post("/v1/enrolments/renewals", json=new.renewal(newer)).status_code == 201
    identity = api.get("/v1/devices/dev1/identity").json()
    assert (identity["key_is_to_change"], identity["cut_off_due"]) == (False, True)


def test_who_holds_the_old_key_cannot_undo_a_rotation(api: TestClient) -> None:
    key, held = enrolled(api)
    new = DeviceKey("dev1")
    newer = api.post("/v1/enrolments/renewals", json=key.renewal(held, new)).json()["certificate"]
    assert api.post("/v1/enrolments/renewals", json=key.renewal(held)).status_code == 409
    used = api.post("/v1/enrolments/confirmations", json=key.renewal(held))
    assert used.status_code == 403
    assert api.post("/v1/enrolments/renewals", json=new.renewal(newer)).status_code == 201


def test_a_revoked_device_gets_nothing_any_more(api: TestClient, controller: Any) -> None:
    enrolment = controller.parts.services.enrolment
    key, held = enrolled(api)
    serial = f"{x509.load_pem_x509_certificate(held.encode()).serial_number:x}"
    assert enrolment.standing(serial) == "dev1"
    answer = api.post("/v1/devices/dev1/revocation", json={"reason": "stolen"})
    assert (answer.json()["revoked_because"], answer.json()["cut_off_due"]) == ("stolen", True)
    assert enrolment.standing(serial) is None
    assert api.post("/v1/enrolments/renewals", json=key.renewal(held)).status_code == 403
    enrol(api, key, None, 409)
    enrol(api, key, made_token(api), 409)
    with controller.parts.services.database.reading() as session:
        assert identities.revoked_serials(session, controller.clock.wall()) == [serial]
        after = controller.clock.wall() + 31 * DAY_S
        assert identities.revoked_serials(session, after) == []
    enrol(api, key, made_token(api, device_id="dev1"))
    assert api.post("/v1/devices/nobody/revocation", json={"reason": "x"}).status_code == 404


def test_what_is_no_csr_of_ours_is_refused_in_words(api: TestClient) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = csr_of(curve, "dev1").public_bytes(encoding=_DER)[:-4] + b"\0\0\0\0"
    for csr, words in (
        ("nothing", "no certificate request"),
        (pem(csr_of(curve, "Dev 1")), "cannot stand in a topic"),
        (pem(csr_of(curve, "dev1", "dev2")), "more or less than one CN"),
        (pem(csr_of(curve)), "more or less than one CN"),
        (pem(csr_of(weak, "dev1")), "no key on"),
        (_pem_of(forged), ""),
        (pem(_ed25519_csr()), "no key on"),
        ("é", "no certificate request"),
    ):
        answer = api.post("/v1/enrolments", json={"csr": csr})
        assert answer.status_code == 422, (csr, answer.text)
        assert words in answer.json()["error"]["message"]
    assert api.post("/v1/enrolments", json={"csr": "x" * 9000}).status_code == 422


def test_no_secret_is_kept(api: TestClient, controller: Any, tmp_path: Path) -> None:
    token = made_token(api, labels={"site": "lab"})
    enrol(api, DeviceKey("dev1"), token)
    with controller.parts.services.database.reading() as session:
        entries = session.scalars(select(AuditEntry)).all()
        assert [entry.subject for entry in entries] == ["enrolment-tokens", "enrolments"]
        assert entries[1].essence["token"] == "(not recorded)"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    assert token not in repr(api.get("/v1/enrolment-tokens").json())


def test_the_authoritys_key_is_its_owners_alone(api: TestClient, tmp_path: Path) -> None:
    answer = api.get("/v1/enrolments/authority").json()
    root = x509.load_pem_x509_certificate(answer["authority"].encode())
    assert root.fingerprint(hashes.SHA256()).hex() == answer["fingerprint"]
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert list((tmp_path / "ca").glob(".*")) == []


_DER = Encoding.DER


def _pem_of(der: bytes) -> str:
    body = encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def _ed25519_csr() -> x509.CertificateSigningRequest:
    key = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder()
    return builder.subject_name(
        csr_of(ec.generate_private_key(ec.SECP256R1()), "dev1").subject
    ).sign(key, None)
