"""The journal on disk: one JSON document, replaced atomically and durably at every transition.

Invariants: `save` returns only when a power cut cannot take the state back; a journal that cannot
be read, or was changed on the medium, is kept aside as `journal.corrupt-<n>` and never deleted.
"""

import logging
from typing import Final

from edgeloop_agent.core.journal_document import decode_journal, encode_journal
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.errors import JournalDamagedError
from edgeloop_agent.ports import Disk
from edgeloop_agent.shell.durable_files import write_durably

logger = logging.getLogger(__name__)

FILE_NAME: Final = "journal.json"
CORRUPT_PREFIX: Final = "journal.corrupt-"


class FileJournal:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def load(self) -> tuple[DeviceSnapshot, str]:
        try:
            return decode_journal(self._disk.read(FILE_NAME)), ""
        except FileNotFoundError:
            return DeviceSnapshot(), ""
        except JournalDamagedError as error:
            kept = self._keep_aside()
            problem = f"the journal could not be read and is kept as {kept}: {error}"
            logger.error("%s", problem)
            return DeviceSnapshot(), problem

    def save(self, snapshot: DeviceSnapshot) -> None:
        write_durably(self._disk, FILE_NAME, encode_journal(snapshot))

    def _keep_aside(self) -> str:
        number = 1
        while self._disk.size(f"{CORRUPT_PREFIX}{number}") is not None:
            number += 1
        aside = f"{CORRUPT_PREFIX}{number}"
        self._disk.rename(FILE_NAME, aside)  # durable with the next save; else it is found again
        return aside
