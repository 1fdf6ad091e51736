"""The end of a run: let the outboxes drain, and keep what they say of themselves.

Invariants: the outboxes are only read; what is kept was read after the agents had ended, so it is
final.
"""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Final

from edgeloop_simulators.record import OutboxEpoch
from edgeloop_simulators.testbed import Testbed

DRAIN_DEADLINE_S: Final = 12.0
POLL_S: Final = 0.3
EPOCHS: Final = """
    select epoch, appended, dropped,
        (select count(*) from records where epoch_id = epochs.id) from epochs order by id
"""


def drain(bed: Testbed) -> None:
    """Silence the sensors and wait until each agent's outbox was seen empty, or the deadline."""
    bed.sensors.silence()
    waiting = set(bed.fleet.devices)
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    while waiting and time.monotonic() < deadline:
        waiting -= {d for d in waiting if not any(e.held for e in _read(bed, d))}
        time.sleep(POLL_S)


def keep_outboxes(bed: Testbed) -> None:
    """Write outboxes.json; call when the agents have ended."""
    epochs = [asdict(one) for device in bed.fleet.devices for one in _read(bed, device)]
    (bed.directory / "outboxes.json").write_text(json.dumps(epochs), encoding="utf-8")


def _read(bed: Testbed, device: str) -> list[OutboxEpoch]:
    return read_outbox(device, bed.fleet.outbox_of(device))


def read_outbox(device: str, path: Path) -> list[OutboxEpoch]:
    """Every boot of one agent; none when it has not got so far as to make an outbox."""
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
        return [
            OutboxEpoch(device=device, epoch=epoch, appended=appended, held=held, dropped=dropped)
            for epoch, appended, dropped, held in connection.execute(EPOCHS)
        ]
