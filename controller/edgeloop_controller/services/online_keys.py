"""The controller's own keys, which say what is current: made here, and never given away.

Invariants: a private key is in one file that only its owner reads, and in no answer and no log; a
key of no root, neither in force nor waiting, is removed when new ones are made.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Key, Root

from edgeloop_controller.errors import StartError
from edgeloop_controller.trust.metadata import ONLINE
from edgeloop_controller.trust_store import TrustStore

_DIRECTORY: Final = "keys/"
_SUFFIX: Final = ".pem"


class OnlineKeys:
    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self.signers: Mapping[str, Signer] = {}
        """By the key's id."""

    def load(self) -> None:
        """Raises StartError for a file that is no key."""
        self.signers = {name: self._read(name) for name in self._ids()}

    def make(self, roots: Collection[Root]) -> dict[str, Key]:
        """A new pair for each online role; `roots`: whose keys are kept. Raises OSError."""
        used = {k for root in roots for role in ONLINE for k in root.roles[role].keyids}
        made = {role: CryptoSigner.generate_ed25519() for role in ONLINE}
        changes: dict[str, str | None] = {_file(k): None for k in self.signers if k not in used}
        for signer in made.values():
            changes[_file(signer.public_key.keyid)] = signer.private_bytes.decode()
        self._store.commit(changes)
        self.load()
        return {role: signer.public_key for role, signer in made.items()}

    def _ids(self) -> list[str]:
        names = [name for name in self._store.names() if name.startswith(_DIRECTORY)]
        return [name.removeprefix(_DIRECTORY).removesuffix(_SUFFIX) for name in names]

    def _read(self, keyid: str) -> Signer:
        try:
            private: Any = load_pem_private_key(self._store.read(_file(keyid)), None)
            signer = CryptoSigner(private)
        except (ValueError, TypeError) as error:
            raise StartError(
                f"<data_dir>/trust/{_file(keyid)} is no private key: {error}",
                hint="restore it from a backup; if there is none remove it, start, and "
                "`edgeloop trust rotate online`",
            ) from error
        if signer.public_key.keyid != keyid:
            raise StartError(
                f"<data_dir>/trust/{_file(keyid)} is another key than its name says",
                hint="restore it from a backup",
            )
        return signer


def _file(keyid: str) -> str:
    return f"{_DIRECTORY}{keyid}{_SUFFIX}"
