"""What a person trusts: a directory with the root that they know, and what they saw last.

    root.json   the newest root that was verified; devices and other people are given it
    seen.json   role → the highest version that was seen: nothing older is taken for current

Invariants: written whole or not at all; nothing secret stands in it but keys that a person puts
there.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tuf.api.metadata import Root

from edgeloop_controller.trust.metadata import Document, read_root
from edgeloop_protocol.errors import TrustError

ROOT_FILE: Final = "root.json"
SEEN_FILE: Final = "seen.json"


class Home:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def root_path(self) -> Path:
        return self.directory / ROOT_FILE

    def root(self) -> Document[Root]:
        """Raises TrustError when there is none, or it is no root."""
        try:
            return read_root(self.root_path.read_bytes())
        except OSError as error:
            raise TrustError(
                f"no root to begin from: {self.root_path}: {error.strerror}",
                "copy root.json from who ran `edgeloop trust init`, by a way that you trust, or "
                "name its directory by --home",
            ) from error

    def keep_root(self, root: Document[Root]) -> None:
        self._write(ROOT_FILE, root.content)

    def check_seen(self, versions: Mapping[str, int]) -> None:
        """Raises TrustError for a controller that gives something older than was seen."""
        seen = self._seen()
        for role, version in versions.items():
            if version < seen.get(role, 0):
                raise TrustError(
                    f"the controller gives version {version} of {role}; {seen[role]} was seen "
                    "before",
                    "somebody hides what is newer, or it was restored from a backup: only if you "
                    f"know of that, remove {self.directory / SEEN_FILE}",
                )

    def keep_seen(self, versions: Mapping[str, int]) -> None:
        seen = self._seen()
        newest = {**seen, **{r: max(v, seen.get(r, 0)) for r, v in versions.items()}}
        if newest != seen:
            self._write(SEEN_FILE, json.dumps(newest, indent=2, sort_keys=True).encode())

    def _seen(self) -> dict[str, int]:
        try:
            document = json.loads((self.directory / SEEN_FILE).read_bytes())
            return {str(role): int(version) for role, version in document.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TrustError(
                f"{self.directory / SEEN_FILE} cannot be read: {error}",
                "it holds the versions that you saw; restore it, or remove it if you know why",
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.directory / f".{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.directory / name)
