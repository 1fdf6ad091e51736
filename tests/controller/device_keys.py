"""What a device does to be enrolled, for tests: a key, a CSR, a signature."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeloop_protocol.enrolment import renewal_message


def csr_of(key: Any, *names: str) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def pem(what: Any) -> str:
    return str(what.public_bytes(serialization.Encoding.PEM).decode())


@dataclass
class DeviceKey:
    device_id: str
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def csr(self) -> str:
        return pem(csr_of(self.key, self.device_id))

    def renewal(self, certificate: str, new: "DeviceKey | None" = None) -> dict[str, str]:
        csr = csr_of((new or self).key, self.device_id)
        message = renewal_message(csr.public_bytes(serialization.Encoding.DER))
        signature = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        return {
            "certificate": certificate,
            "csr": pem(csr),
            "signature": b64encode(signature).decode(),
        }

    @property
    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
