"""Keys of people: PEM files, or any URI that securesystemslib knows, such as `hsm:…`.

Invariants: a passphrase is asked for or read from where it was put, and is never an argument; a
private key's file is made readable by its owner only, and never written over.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer, SSlibKey

from edgeloop_protocol.errors import TrustError

PRIVATE_SUFFIX: Final = ".pem"
PUBLIC_SUFFIX: Final = ".pub"
_PROBE: Final = b"edgeloop: whose key is this"

AskPassphrase = Callable[[str], str]
"""Given what it opens, in words."""


def make_key(path: Path, passphrase: str) -> Key:
    """`NAME.pem`, and `NAME.pub` beside it; an empty passphrase leaves it open. Raises TrustError
    when a file is there already, and OSError."""
    if path.suffix != PRIVATE_SUFFIX:
        raise TrustError(f"{path}: a private key's file ends in {PRIVATE_SUFFIX}")
    signer = CryptoSigner.generate_ed25519()
    # securesystemslib gives the private key unencrypted only, so it is read back from that.
    key: Any = load_pem_private_key(signer.private_bytes, None)
    locked = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, content, mode in ((path, private, 0o600), (public_path(path), public, 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise TrustError(
                f"{file} exists", "a key is never written over: name another"
            ) from None
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    return signer.public_key


def public_path(path: Path) -> Path:
    return path.with_suffix(PUBLIC_SUFFIX)


def read_public(path: Path, ask: AskPassphrase) -> Key:
    """From a public key's PEM file, or from a private one's. Raises TrustError."""
    content = _read(path)
    if b"PRIVATE KEY" in content:
        return read_private(path, ask).public_key
    try:
        public: Any = load_pem_public_key(content)
        return SSlibKey.from_crypto(public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(
            f"{path} is no key in PEM", "`edgeloop trust new-key` makes one"
        ) from error


def is_private(path: Path) -> bool:
    return b"PRIVATE KEY" in _read(path)


def read_private(path: Path, ask: AskPassphrase) -> Signer:
    """Asks for the passphrase of a key that has one. Raises TrustError."""
    content = _read(path)
    passphrase = None
    if b"ENCRYPTED" in content:
        passphrase = ask(f"the key {path}").encode()
    try:
        private: Any = load_pem_private_key(content, passphrase)
        return CryptoSigner(private)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = "its passphrase is another" if passphrase is not None else "it cannot be read"
        raise TrustError(f"{path} opens no private key: {wrong}") from error


def is_uri(reference: str) -> bool:
    return reference.partition(":")[0] in SIGNER_FOR_URI_SCHEME and not Path(reference).exists()


def open_uri(uri: str, keys: Iterable[Key], ask: AskPassphrase) -> Signer:
    """The signer at a URI; which of the keys it is, it shows by signing. Raises TrustError."""
    asked: dict[str, str] = {}

    def secret(what: str) -> str:
        if what not in asked:
            asked[what] = ask(what)
        return asked[what]

    problem: Exception | None = None
    for key in keys:
        try:
            signer = Signer.from_priv_key_uri(uri, key, secret)
            key.verify_signature(signer.sign(_PROBE), _PROBE)
        except Exception as error:  # of any driver: the next key may be the one
            problem = error
        else:
            return signer
    raise TrustError(
        f"{uri.partition(':')[0]}: no key that may sign is there: {problem}",
        "list its public key first: `edgeloop trust add-key ROLE FILE.pub`",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(
            f"{path}: {error.strerror}", "give the path of a key's PEM file"
        ) from error
