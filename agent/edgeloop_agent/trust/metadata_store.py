"""The metadata that is kept: `ROLE.json` and `bootstrap-root`, each replaced durably as a whole.

Invariants: after a power cut there is the old document or the new, never half; a root that cannot
be used costs a download, never trust: the bootstrap stands behind it; another bootstrap begins the
store anew. A role's name is quoted, so that it names no other file.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from edgeloop_agent.shell.durable_files import write_durably

if TYPE_CHECKING:
    from edgeloop_agent.ports import Disk

BOOTSTRAP: Final = "bootstrap-root"
SUFFIX: Final = ".json"
ROOT: Final = "root"


class MetadataStore:
    """`disk`: of this store alone."""

    def __init__(self, disk: "Disk") -> None:
        self._disk = disk

    def begin(self, bootstrap: bytes) -> None:
        """What to trust when nothing else is left. Raises OSError."""
        has_begun = self._read(BOOTSTRAP) == bootstrap
        if not has_begun:
            self._forget()
        # Names that a killed verifier gave or took are durable before anything rests on them.
        self._disk.sync_directory("")
        if not has_begun:
            write_durably(self._disk, BOOTSTRAP, bootstrap)
            self.save(ROOT, bootstrap)

    def roots(self) -> Iterator[bytes]:
        for document in (self.load(ROOT), self._read(BOOTSTRAP)):
            if document is not None:
                yield document

    def load(self, role: str) -> bytes | None:
        return self._read(_file_name(role))

    def save(self, role: str, document: bytes) -> None:
        write_durably(self._disk, _file_name(role), document)

    def _forget(self) -> None:
        for name in self._disk.list(""):
            if name.endswith(SUFFIX):
                self._disk.remove(name)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._disk.read(name)
        except OSError:
            return None


def _file_name(role: str) -> str:
    return quote(role, safe="") + SUFFIX
