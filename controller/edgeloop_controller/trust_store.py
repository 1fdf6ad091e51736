"""Where signed metadata, online keys and waiting proposals are kept: a few small files, by name.

Invariants: files change together or not at all, also across a power cut at any moment; what
`commit` has returned survives one; nobody but the owner can read a file.
tests/contracts/test_trust_store_contract.py holds every adapter to this.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from edgeloop_controller.durable_names import sync_directory
from edgeloop_controller.errors import NotFoundError, StartError

_NAME: Final = re.compile(r"(?:[a-z]+/)?[A-Za-z0-9][A-Za-z0-9_.+-]*")
_JOURNAL: Final = "commit.json"
_PART: Final = ".part"


class TrustStore(Protocol):
    """Files by name, such as `metadata/1.root.json`; one writer at a time."""

    def names(self) -> list[str]:
        """Of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Raises NotFoundError."""

    def commit(self, changes: Mapping[str, str | None]) -> None:
        """Write these files, in this order, and remove those that are None: all, or none.

        Raises OSError when it cannot be kept; then `recover` comes before anything else.
        """

    def recover(self) -> None:
        """Complete a commit that failed half-way. Raises OSError."""


class MemoryTrustStore:
    """Of a controller that has no directory: in virtual worlds and tests."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        if name not in self._files:
            raise _not_found(name)
        return self._files[name]

    def commit(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            if text is None:
                self._files.pop(name, None)
            else:
                self._files[_checked(name)] = text.encode()

    def recover(self) -> None:
        """Memory keeps everything."""


class LocalTrustStore:
    """A directory. It is made with the first commit: where there is none, nobody trusts."""

    def __init__(self, root: Path) -> None:
        """Completes a commit that a stop interrupted. Raises StartError when it cannot."""
        self._root = root
        try:
            self.recover()
        except (OSError, ValueError) as error:
            raise StartError(
                f"the trust directory {root} cannot be used: {error}",
                hint="mend its permissions or its disk, or restore it from a backup; without it "
                "the controller would offer what nobody signed",
            ) from error

    def names(self) -> list[str]:
        found = (path.relative_to(self._root) for path in self._root.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.suffix != _PART)

    def read(self, name: str) -> bytes:
        try:
            return (self._root / _checked(name)).read_bytes()
        except (FileNotFoundError, ValueError) as error:
            raise _not_found(name) from error

    def commit(self, changes: Mapping[str, str | None]) -> None:
        for name in changes:
            _checked(name)
        self._make_directories(changes)
        self._write(_JOURNAL, json.dumps(changes))
        self._apply(changes)

    def recover(self) -> None:
        for part in self._root.rglob(f"*{_PART}"):
            part.unlink()
        journal = self._root / _JOURNAL
        if journal.exists():
            self._apply(json.loads(journal.read_bytes()))

    def _apply(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            if text is None:
                (self._root / name).unlink(missing_ok=True)
            else:
                self._write(name, text)
        self._sync_directories({(self._root / name).parent for name in changes})
        (self._root / _JOURNAL).unlink()
        self._sync_directories([self._root])

    def _make_directories(self, names: Iterable[str]) -> None:
        for directory in (self._root, *{(self._root / name).parent for name in names}):
            if not directory.exists():
                directory.mkdir(mode=0o700, parents=True)
                self._sync_directories([directory.parent])

    def _write(self, name: str, text: str) -> None:
        path = self._root / name
        part = path.with_name(path.name + _PART)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        self._sync_directories([path.parent])

    def _sync_directories(self, directories: Iterable[Path]) -> None:
        for directory in directories:
            sync_directory(directory)


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None or name.endswith(_PART):
        raise ValueError(f"{name!r} is no name of a file of trust")
    return name


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"no file {name!r}", hint="`edgeloop trust status` says what there is")
