"""A journal in memory: the twin of the agent's journal on disk.

Invariant: what is held is the encoded document, so that a power cut is a copy of `document`.
"""

from edgeloop_agent.core.journal_document import decode_journal, encode_journal
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.errors import JournalDamagedError


class MemoryJournal:
    def __init__(self, document: bytes | None = None) -> None:
        self.document = document
        self.kept_aside: list[bytes] = []

    def load(self) -> tuple[DeviceSnapshot, str]:
        if self.document is None:
            return DeviceSnapshot(), ""
        try:
            return decode_journal(self.document), ""
        except JournalDamagedError as error:
            self.kept_aside.append(self.document)
            self.document = None
            return DeviceSnapshot(), f"the journal could not be read: {error}"

    def save(self, snapshot: DeviceSnapshot) -> None:
        self.document = encode_journal(snapshot)
