"""Enrolling and renewing, step by step.

Invariants: a step that failed, or was cut by a power cut, can be done again from the beginning: the
same key is used until its certificate is kept.
"""

from base64 import b64encode
from typing import Any

from edgeloop_agent.enrolment.exchange import Controller
from edgeloop_agent.enrolment.identity_files import IdentityFiles
from edgeloop_agent.enrolment.keys import DeviceKey, check_certificate
from edgeloop_agent.errors import EnrolmentError, NewKeyWantedError


def ask_to_be_enrolled(
    files: IdentityFiles,
    controller: Controller,
    device_id: str,
    token: str | None,
    authority_pem: str | None,
) -> float | None:
    """None: the device is enrolled; else seconds to wait before it asks again, since a person must
    approve it. `authority_pem`: whom to trust besides the authority that the answer names."""
    key = files.next_key()
    body = {"csr": key.csr(device_id).pem, "token": token}
    answer = controller.post("/enrolments", body)
    if answer.get("state") == "pending":
        return float(answer["ask_again_s"])
    trusted = _text(answer, "authority")
    if authority_pem is not None and authority_pem.strip() not in trusted:
        trusted += "\n" + authority_pem
    _keep(files, key, device_id, answer, trusted)
    return None


def renew(files: IdentityFiles, controller: Controller, device_id: str) -> bool:
    """True: with a new key, as the controller wanted."""
    if files.is_unconfirmed():
        _confirm(files, controller, device_id)
    present, chain_pem = files.present()
    if files.has_next_key():  # begun before, and cut short
        return _renew_with(files.next_key(), present, chain_pem, files, controller, device_id)
    try:
        return _renew_with(present, present, chain_pem, files, controller, device_id)
    except NewKeyWantedError:
        return _renew_with(files.next_key(), present, chain_pem, files, controller, device_id)


def _renew_with(
    key: DeviceKey,
    present: DeviceKey,
    chain_pem: str,
    files: IdentityFiles,
    controller: Controller,
    device_id: str,
) -> bool:
    answer = controller.post("/enrolments/renewals", _signed(key, present, chain_pem, device_id))
    _keep(files, key, device_id, answer, None)
    if not files.is_unconfirmed():
        return False
    _confirm(files, controller, device_id)
    return True


def _confirm(files: IdentityFiles, controller: Controller, device_id: str) -> None:
    key, chain_pem = files.present()
    controller.post("/enrolments/confirmations", _signed(key, key, chain_pem, device_id))
    files.confirmed()


def _signed(key: DeviceKey, present: DeviceKey, chain_pem: str, device_id: str) -> dict[str, str]:
    csr = key.csr(device_id)
    return {
        "certificate": chain_pem,
        "csr": csr.pem,
        "signature": b64encode(present.sign_renewal(csr)).decode(),
    }


def _keep(
    files: IdentityFiles,
    key: DeviceKey,
    device_id: str,
    answer: dict[str, Any],
    authority_pem: str | None,
) -> None:
    chain_pem = _text(answer, "certificate")
    check_certificate(chain_pem, key, device_id)
    files.keep(key, chain_pem, authority_pem)


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise EnrolmentError(f"the controller's answer holds no {name}")
    return value
