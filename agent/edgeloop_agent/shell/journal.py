"""The journal on disk: one JSON document, replaced atomically and durably at every transition.

Invariants: `save` returns only when a power cut cannot take the state back; a journal that cannot
be read is kept aside as `journal.corrupt-<n>` and never deleted.
"""

import logging
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.shell.durable_files import sync_directory, write_durably

logger = logging.getLogger(__name__)

FILE_NAME: Final = "journal.json"


class FileJournal:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME

    def load(self) -> tuple[DeviceSnapshot, str]:
        try:
            return DeviceSnapshot.model_validate_json(self._path.read_bytes()), ""
        except FileNotFoundError:
            return DeviceSnapshot(), ""
        except (ValidationError, RecursionError) as error:
            kept = self._keep_aside()
            what = str(error).splitlines()[0]
            problem = f"the journal could not be read and is kept as {kept.name}: {what}"
            logger.error("%s", problem)
            return DeviceSnapshot(), problem

    def save(self, snapshot: DeviceSnapshot) -> None:
        write_durably(self._path, snapshot.model_dump_json(indent=1).encode())

    def _keep_aside(self) -> Path:
        number = 1
        while (aside := self._path.with_name(f"journal.corrupt-{number}")).exists():
            number += 1
        self._path.replace(aside)
        sync_directory(self._path.parent)
        return aside
