"""Keys, requests and signatures, on `cryptography`: ECDSA P-256 with SHA-256."""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeloop_agent.errors import EnrolmentError
from edgeloop_protocol.enrolment import renewal_message

_DER: Final = serialization.Encoding.DER
_PEM: Final = serialization.Encoding.PEM


class DeviceKey:
    """Made here or read from a file; it never leaves the device."""

    def __init__(self, pem: bytes | None = None) -> None:
        """Raises EnrolmentError when `pem` holds no such key."""
        self._key = ec.generate_private_key(ec.SECP256R1()) if pem is None else _loaded(pem)

    @property
    def pem(self) -> bytes:
        return self._key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, as the controller shows it."""
        return _fingerprint(self._key.public_key())

    def csr(self, device_id: str) -> "Csr":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return Csr(builder.sign(self._key, hashes.SHA256()))

    def sign_renewal(self, csr: "Csr") -> bytes:
        return self._key.sign(renewal_message(csr.der), ec.ECDSA(hashes.SHA256()))


class Csr:
    def __init__(self, csr: x509.CertificateSigningRequest) -> None:
        self.pem = csr.public_bytes(_PEM).decode()
        self.der = csr.public_bytes(_DER)


def check_certificate(chain_pem: str, key: DeviceKey, device_id: str) -> None:
    """Raises EnrolmentError unless the first certificate is for this key and this device."""
    try:
        first = x509.load_pem_x509_certificates(chain_pem.encode())[0]
    except ValueError as error:
        raise EnrolmentError("the controller answered with no certificate in PEM") from error
    names = [str(it.value) for it in first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    public = first.public_key()
    is_ours = isinstance(public, ec.EllipticCurvePublicKey) and (
        _fingerprint(public) == key.fingerprint
    )
    if not is_ours or names != [device_id]:
        raise EnrolmentError(
            f"the controller answered with a certificate for {names}, or for another key: "
            "look at what the URL is of"
        )


def certificate_fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate. Raises EnrolmentError."""
    try:
        first = x509.load_pem_x509_certificates(pem.encode())[0]
    except ValueError as error:
        raise EnrolmentError("no certificate in PEM") from error
    return first.fingerprint(hashes.SHA256()).hex()


def _loaded(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentError("the key's file holds no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EnrolmentError("the key is no elliptic curve's")
    return key


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(_DER, form)).hexdigest()
