"""What an agent under torture promised: the torturer's memory, which no disaster reaches.

Invariants: a promise is told before the agent goes on; what is in the ledger must hold of any disk
that a disaster leaves from then on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import Journal, Outbox
from edgeloop_simulators.twins.watched_outbox import WatchedOutbox

Tell = Callable[[str], None]
"""Returns when the torturer has it."""


@dataclass
class Ledger:
    """`revision`: of the last journal that was said to be safe, `champions` its versions by slot,
    and `champions_before` those of the first with that revision; `appended`: by epoch, records said
    to be safe; `received`: by epoch, what came to the controller."""

    revision: int = 0
    champions: Mapping[str, str] = field(default_factory=dict)
    champions_before: Mapping[str, str] = field(default_factory=dict)
    appended: dict[str, int] = field(default_factory=dict)
    received: dict[str, set[int]] = field(default_factory=dict)
    is_done: bool = False
    appended_when_done: dict[str, int] = field(default_factory=dict)

    def take(self, line: str) -> None:
        told = json.loads(line)
        match told["what"]:
            case "saved":
                self.champions = told["champions"]
                if told["revision"] != self.revision:
                    self.revision, self.champions_before = told["revision"], self.champions
            case "appended":
                self.appended[told["epoch"]] = told["through"]
            case "received":
                came = range(told["first"], told["first"] + told["count"])
                self.received.setdefault(told["epoch"], set()).update(came)
            case "done":
                self.is_done = True
                self.appended_when_done = dict(self.appended)

    def missing(self) -> list[str]:
        """Epochs of which a record that was promised before it was done never came."""
        return [
            epoch
            for epoch, through in self.appended_when_done.items()
            if not set(range(1, through + 1)) <= self.received.get(epoch, set())
        ]


def saved(snapshot: DeviceSnapshot) -> str:
    champions = {s.slot: s.champion.manifest_digest for s in snapshot.slots if s.champion}
    return json.dumps({"what": "saved", "revision": snapshot.revision, "champions": champions})


def received(epoch: str, first: int, count: int) -> str:
    return json.dumps({"what": "received", "epoch": epoch, "first": first, "count": count})


def done() -> str:
    return json.dumps({"what": "done"})


class TellingJournal:
    """Tells what was saved, after it was."""

    def __init__(self, journal: Journal, tell: Tell) -> None:
        self._journal = journal
        self._tell = tell

    def load(self) -> tuple[DeviceSnapshot, str]:
        return self._journal.load()

    def save(self, snapshot: DeviceSnapshot) -> None:
        self._journal.save(snapshot)
        self._tell(saved(snapshot))


class TellingOutbox(WatchedOutbox):
    """Tells what was appended, after it was."""

    def __init__(self, outbox: Outbox, tell: Tell) -> None:
        super().__init__(outbox)
        self._tell = tell
        self._appended = 0

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        dropped = super().append(documents, budget_left_bytes)
        self._appended += len(documents)
        told = {"what": "appended", "epoch": self.epoch, "through": self._appended}
        self._tell(json.dumps(told))
        return dropped
