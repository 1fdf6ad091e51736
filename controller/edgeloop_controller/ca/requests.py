"""What devices send to get a certificate: a CSR, and the signature of a renewal, checked.

Invariants: nothing of a CSR is used but its key and its name; a CSR is signed by its own key, and
the key is one that every part of Edgeloop takes; whatever is wrong is a RefusedInputError.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeloop_controller.errors import RefusedInputError
from edgeloop_protocol.enrolment import renewal_message

PublicKey = ec.EllipticCurvePublicKey
CURVES: Final = ("secp256r1", "secp384r1")
UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What `cryptography` raises of bytes that are not what they should be."""
_MEND: Final = "make it with `edgeloop-agent enroll`, or by openssl: EC P-256, CN = the device id"


@dataclass(frozen=True)
class Csr:
    device_id: str
    key: PublicKey
    fingerprint: str
    der: bytes


@dataclass(frozen=True)
class ShownCertificate:
    """As a device sent it: its books say whether it is ours."""

    serial: str
    key: PublicKey


def read_csr(pem: str) -> Csr:
    """Raises RefusedInputError."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = csr.public_key()
        names = list(csr.subject)
    except UNREADABLE as error:
        raise RefusedInputError("csr is no certificate request in PEM", _MEND) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise RefusedInputError(f"csr is of no key on {' or '.join(CURVES)}", _MEND)
    if not _is_signed(csr):
        raise RefusedInputError("csr is not signed by its own key", _MEND)
    if [name.oid for name in names] != [NameOID.COMMON_NAME]:
        raise RefusedInputError("csr names more or less than one CN", _MEND)
    der = csr.public_bytes(serialization.Encoding.DER)
    return Csr(str(names[0].value), key, key_fingerprint(key), der)


def read_certificate(pem: str) -> ShownCertificate:
    """The first of a chain. Raises RefusedInputError."""
    try:
        shown = x509.load_pem_x509_certificate(pem.encode("ascii"))
        key = shown.public_key()
        serial = shown.serial_number
    except UNREADABLE as error:
        raise RefusedInputError("certificate is no certificate in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RefusedInputError("certificate is of no elliptic curve's key")
    return ShownCertificate(f"{serial:x}", key)


def _is_signed(csr: x509.CertificateSigningRequest) -> bool:
    try:
        return csr.is_signature_valid
    except UNREADABLE:  # by an algorithm that is none
        return False


def check_renewal(csr: Csr, shown: ShownCertificate, signature: bytes) -> None:
    """Raises RefusedInputError unless the certificate's key signed for this CSR."""
    try:
        shown.key.verify(signature, renewal_message(csr.der), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise RefusedInputError(
            "signature is not by the certificate's key over this csr"
        ) from error


def key_fingerprint(key: PublicKey) -> str:
    """SHA-256 of the key as it stands in a certificate (SubjectPublicKeyInfo)."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()
