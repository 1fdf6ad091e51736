"""The certificate authority: its key on disk, and what it signs (ADR 0033).

Invariants: ECDSA P-256 with SHA-256; what it signs is no authority itself, and is for clients or
for servers, never both; an authority of our own is made once, by whoever comes first; its key is
never wider than 0600.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeloop_controller.ca.config import CaConfig
from edgeloop_controller.ca.requests import PublicKey, key_fingerprint
from edgeloop_controller.ca.secret_files import (
    make_secret_directory,
    write_new_file,
)
from edgeloop_controller.core.enrolment import key_uri
from edgeloop_controller.errors import StartError

YEAR_S: Final = 365 * 86_400.0
OWN_AUTHORITY_S: Final = 20 * YEAR_S
FILES_READABLE: Final = 0o644
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
_HASH: Final = hashes.SHA256()


@dataclass(frozen=True)
class Issued:
    """`chain_pem`: the certificate and, if there are, the authorities between it and the root."""

    serial: str
    key: str
    begins: float
    ends: float
    chain_pem: str


class Authority:
    """Opens what is configured, or makes one below `directory`. Raises StartError."""

    def __init__(self, directory: Path, config: CaConfig, now: float) -> None:
        own = config.certificate_path is None
        if own:
            make_secret_directory(directory)
            _make(directory, now)
        certificate = config.certificate_path or directory / "ca.pem"
        key = config.key_path or directory / "ca.key"
        self._key = _load_key(key)
        (self._certificate, *between) = _load_certificates(certificate)
        if _numbers(self._certificate.public_key()) != _numbers(self._key.public_key()):
            raise StartError(
                f"{key} is not the key of the authority's certificate {certificate}",
                hint="set [ca] certificate_path and key_path to two that were made together",
            )
        if config.chain_path is not None:
            between += _load_certificates(config.chain_path)
        self._between = _pem(one for one in between if not _is_root(one))
        roots = [one for one in (self._certificate, *between) if _is_root(one)]
        if not roots:
            raise StartError(
                f"{certificate} is an intermediate's, and its root is not given",
                hint="set [ca] chain_path to the authorities above it, the root too",
            )
        self.trusted_pem = _pem(roots)
        """What devices, brokers and clients are to trust."""
        self.issuers_pem = _pem([self._certificate, *between])
        """All authorities that are known, for a server that verifies what they signed."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate that devices trust, hexadecimal."""
        trusted = x509.load_pem_x509_certificate(self.trusted_pem.encode())
        return trusted.fingerprint(_HASH).hex()

    @property
    def ends(self) -> float:
        return self._certificate.not_valid_after_utc.timestamp()

    def has_signed(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def issue_client(
        self,
        name: str,
        key: PublicKey,
        begins: float,
        ends: float,
        known_by: str | None = None,
    ) -> Issued:
        """`name`: the device id, or that of a client of the controller's own; `known_by`: the
        fingerprint of a key that it shall name in place of its own, to try what becomes of it."""
        uri = key_uri(known_by or key_fingerprint(key))
        names = (x509.UniformResourceIdentifier(uri),)
        return self._issue(name, key, begins, ends, ExtendedKeyUsageOID.CLIENT_AUTH, names)

    def issue_server(
        self, names: Sequence[str], key: PublicKey, begins: float, ends: float
    ) -> Issued:
        """`names`: host names and addresses, the first of which is its common name too."""
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        alternatives = [_alternative(name) for name in names]
        return self._issue(names[0], key, begins, ends, purpose, alternatives)

    def revocations(self, serials: Iterable[str], now: float) -> str:
        """A revocation list in PEM. It never runs out: who serves it is told of each new one, and a
        list that had run out would lock out every device."""
        at = datetime.fromtimestamp(int(now), UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(at)
            .next_update(_NEVER)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(one.revocation_date(at).build())
        made = builder.sign(self._key, _HASH)
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self,
        name: str,
        key: PublicKey,
        begins: float,
        ends: float,
        purpose: x509.ObjectIdentifier,
        alternatives: Sequence[x509.GeneralName],
    ) -> Issued:
        issuer = self._certificate
        builder = (
            _builder(name, issuer.subject, key, begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(_authority_key(issuer), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        )
        made = builder.sign(self._key, _HASH)
        return Issued(
            serial=f"{made.serial_number:x}",
            key=key_fingerprint(key),
            begins=made.not_valid_before_utc.timestamp(),
            ends=made.not_valid_after_utc.timestamp(),
            chain_pem=_pem([made]) + self._between_and_issuer(),
        )

    def _between_and_issuer(self) -> str:
        """An intermediate must be shown along; a root is known to who trusts it."""
        own = "" if _is_root(self._certificate) else _pem([self._certificate])
        return own + self._between


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _make(directory: Path, now: float) -> None:
    """The key comes first and never changes: whoever loses the race signs with the other's."""
    path = directory / "ca.key"
    if not path.exists():
        write_new_file(path, key_pem(new_key()))
    if (directory / "ca.pem").exists():
        return
    key = _load_key(path)
    name = f"Edgeloop CA {key_fingerprint(key.public_key())[:8]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(name, subject, key.public_key(), now - 3600, now + OWN_AUTHORITY_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    made = builder.sign(key, _HASH)
    write_new_file(directory / "ca.pem", _pem([made]).encode(), FILES_READABLE)


def _builder(
    name: str, issuer: x509.Name, key: PublicKey, begins: float, ends: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(begins), UTC))
        .not_valid_after(datetime.fromtimestamp(int(ends), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    what = f"the authority's key {path}"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StartError(
            f"{what} cannot be read: {error.strerror}", hint="chown it to this user, chmod 600"
        ) from error
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise StartError(
            f"{what} is no private key in PEM without a password",
            hint="store it as PKCS 8 in PEM, readable by this user alone",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StartError(
            f"{what} is no elliptic curve's", hint="let the authority use ECDSA P-256 or P-384"
        )
    if path.stat().st_mode & 0o077:
        raise StartError(f"others than its owner can read {path}", hint=f"chmod 600 {path}")
    return key


def _load_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise StartError(
            f"the authority's certificate {path} cannot be read: {error.strerror}",
            hint="put it there, or correct [ca]",
        ) from error
    except ValueError as error:
        raise StartError(
            f"{path} holds no certificate in PEM", hint="put the file there, or correct [ca]"
        ) from error


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _numbers(key: object) -> ec.EllipticCurvePublicNumbers | None:
    return key.public_numbers() if isinstance(key, ec.EllipticCurvePublicKey) else None


def _pem(certificates: Iterable[x509.Certificate]) -> str:
    encoding = serialization.Encoding.PEM
    return b"".join(one.public_bytes(encoding) for one in certificates).decode()
