"""A journal in memory: the twin of the agent's journal on disk.

Invariant: what is held is the encoded document, so that a power cut is a copy of `document`.
"""

from pydantic import ValidationError

from edgeloop_agent.core.snapshot import DeviceSnapshot


class MemoryJournal:
    def __init__(self, document: bytes | None = None) -> None:
        self.document = document
        self.kept_aside: list[bytes] = []

    def load(self) -> tuple[DeviceSnapshot, str]:
        if self.document is None:
            return DeviceSnapshot(), ""
        try:
            return DeviceSnapshot.model_validate_json(self.document), ""
        except ValidationError as error:
            self.kept_aside.append(self.document)
            self.document = None
            what = str(error).splitlines()[0]
            return DeviceSnapshot(), f"the journal could not be read: {what}"

    def save(self, snapshot: DeviceSnapshot) -> None:
        self.document = snapshot.model_dump_json().encode()
