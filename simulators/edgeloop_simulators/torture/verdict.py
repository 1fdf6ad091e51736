"""What must hold of the disk that a disaster left, by what the agent had promised before.

EL-INV-1: the champion of the journal, old version or new, is whole. EL-INV-4: no journal that was
said to be safe is taken back. EL-TEL-3: no record that was said to be safe and not acknowledged is
lost. Read-only, but for what SQLite does to open a database whose writer has died.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edgeloop_agent.core.journal_document import decode_journal
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.errors import JournalDamagedError
from edgeloop_agent.shell import journal, outbox_file
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_protocol.messages import Offer
from edgeloop_simulators.torture.promises import Ledger


def broken(state_dir: Path, ledger: Ledger) -> list[str]:
    """In words; empty: all holds."""
    return [*_of_journal(state_dir, ledger), *_of_outbox(state_dir, ledger)]


def _of_journal(state_dir: Path, ledger: Ledger) -> Iterator[str]:
    try:
        snapshot = decode_journal((state_dir / journal.FILE_NAME).read_bytes())
    except FileNotFoundError:
        snapshot = DeviceSnapshot()
    except JournalDamagedError as error:
        yield f"EL-INV-1: the journal is damaged: {error}"
        return
    if snapshot.revision < ledger.revision:
        yield f"EL-INV-4: revision {snapshot.revision}; {ledger.revision} was said to be safe"
    champions = {slot.slot: slot.champion for slot in snapshot.slots if slot.champion is not None}
    for slot, digest in ledger.champions.items():
        held = champions.get(slot)
        if held is None:
            yield f"EL-INV-1: slot {slot} has no champion; {digest[:12]} was committed"
        elif (
            snapshot.revision == ledger.revision
            and held.manifest_digest != digest
            and ledger.champions_before.get(slot) != digest  # else it is a step further
        ):
            yield f"EL-INV-4: slot {slot} is back at {held.ref}; {digest[:12]} was committed"
    for slot, champion in champions.items():
        problem = _unsound(state_dir, champion)
        if problem:
            yield f"EL-INV-1: champion {champion.ref} of slot {slot}: {problem}"


def _unsound(state_dir: Path, version: Offer) -> str:
    digest = version.manifest_digest
    for path, expected in (
        (manifest_path(digest), digest),
        (model_path(digest), version.artifact_digest),
    ):
        try:
            content = (state_dir / path).read_bytes()
        except OSError as error:
            return f"{path}: {error.strerror}"
        if hashlib.sha256(content).hexdigest() != expected:
            return f"{path} has {len(content)} bytes, and other ones"
    return ""


def _of_outbox(state_dir: Path, ledger: Ledger) -> Iterator[str]:
    path = state_dir / outbox_file.FILE_NAME
    held: dict[str, set[int]] = {}
    if path.exists():
        database = sqlite3.connect(path)
        try:
            rows = database.execute(
                "SELECT epoch, sequence FROM records JOIN epochs ON epochs.id = epoch_id"
            )
            for epoch, sequence in rows:
                held.setdefault(epoch, set()).add(sequence)
        except sqlite3.DatabaseError as error:
            yield f"EL-TEL-3: the outbox cannot be read: {error}"
            return
        finally:
            database.close()
    for epoch, through in ledger.appended.items():
        safe = held.get(epoch, set()) | ledger.received.get(epoch, set())
        lost = set(range(1, through + 1)) - safe
        if lost:
            yield f"EL-TEL-3: {len(lost)} of {through} records of epoch {epoch} are lost"
