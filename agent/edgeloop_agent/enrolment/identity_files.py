"""The identity directory: what is in it, and how each file is replaced.

Invariants: the directory is 0700 and every file 0600; key, certificate and chain are one file, so
that one rename changes them together; each change is durable before the next step rests on it; a
key that was asked a certificate for is kept until that certificate is in place.
"""

import os
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AUTHORITY_NAME, CERTIFICATE_NAME
from edgeloop_agent.enrolment.keys import DeviceKey
from edgeloop_agent.errors import EnrolmentError
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.os_disk import OsDisk

NEXT_KEY_NAME: Final = "next.key"
UNCONFIRMED_NAME: Final = "unconfirmed"
"""There: the controller has not heard yet that the newest key is in use."""
OWNER_ONLY: Final = 0o077


class IdentityFiles:
    """Makes the directory. From here on nothing that this process makes is for others to read."""

    def __init__(self, directory: Path) -> None:
        os.umask(OWNER_ONLY)
        self.directory = directory
        self._disk = OsDisk(directory)
        directory.chmod(0o700)

    @property
    def authority_path(self) -> Path:
        return self.directory / AUTHORITY_NAME

    def is_enrolled(self) -> bool:
        return self._disk.size(CERTIFICATE_NAME) is not None

    def present(self) -> tuple[DeviceKey, str]:
        """The key in use and its certificates in PEM. Raises EnrolmentError."""
        try:
            content = self._disk.read(CERTIFICATE_NAME)
        except FileNotFoundError as error:
            raise EnrolmentError(
                f"there is no {self.directory / CERTIFICATE_NAME}: `edgeloop-agent enroll` first"
            ) from error
        begins = content.find(b"-----BEGIN CERTIFICATE-----")
        if begins < 0:
            raise EnrolmentError(f"{self.directory / CERTIFICATE_NAME} holds no certificate")
        return DeviceKey(content[:begins]), content[begins:].decode("ascii", "replace")

    def next_key(self) -> DeviceKey:
        """The same one until a certificate for it is kept."""
        if self._disk.size(NEXT_KEY_NAME) is not None:
            return DeviceKey(self._disk.read(NEXT_KEY_NAME))
        key = DeviceKey()
        self._write(NEXT_KEY_NAME, key.pem)
        return key

    def has_next_key(self) -> bool:
        return self._disk.size(NEXT_KEY_NAME) is not None

    def keep(self, key: DeviceKey, chain_pem: str, authority_pem: str | None) -> None:
        """`authority_pem` None: whom to trust stays as it is."""
        if authority_pem is not None:
            self._write(AUTHORITY_NAME, authority_pem.encode())
        is_new = self.has_next_key()
        if is_new and self.is_enrolled():
            self._write(UNCONFIRMED_NAME, b"")
        self._write(CERTIFICATE_NAME, key.pem + chain_pem.encode())
        if is_new:
            self._disk.remove(NEXT_KEY_NAME)
            self._disk.sync_directory("")

    def keep_authority(self, pem: str) -> Path:
        """Whom to trust; nothing is enrolled by it yet."""
        self._write(AUTHORITY_NAME, pem.encode())
        return self.authority_path

    def is_unconfirmed(self) -> bool:
        return self._disk.size(UNCONFIRMED_NAME) is not None

    def confirmed(self) -> None:
        self._disk.remove(UNCONFIRMED_NAME)
        self._disk.sync_directory("")

    def _write(self, name: str, content: bytes) -> None:
        write_durably(self._disk, name, content)
