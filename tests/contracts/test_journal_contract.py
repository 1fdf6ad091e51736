"""The Journal port's contract, on the real adapter and on the twin."""

import random

import pytest

from edgeloop_agent.core.journal_document import encode_journal, seal
from edgeloop_agent.core.snapshot import Candidate, DeviceSnapshot, SlotSnapshot
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Offer, Refusal, VersionRef
from edgeloop_simulators.twins.journal import MemoryJournal


class FileCase:
    def __init__(self, directory):
        self.directory = directory

    def reopen(self):
        return FileJournal(OsDisk(self.directory))

    def damage(self, content):
        (self.directory / "journal.json").write_bytes(content)

    def kept_aside(self):
        return [p.read_bytes() for p in sorted(self.directory.glob("journal.corrupt-*"))]


class MemoryCase:
    def __init__(self):
        self.journal = MemoryJournal()

    def reopen(self):
        return self.journal

    def damage(self, content):
        self.journal.document = content

    def kept_aside(self):
        return self.journal.kept_aside


@pytest.fixture(params=["file", "memory"])
def case(request, tmp_path):
    return FileCase(tmp_path) if request.param == "file" else MemoryCase()


def version(name):
    return VersionRef(name="m", version=name, manifest_digest=name * 64)


def offer(name):
    return Offer(
        **version(name).model_dump(),
        manifest_size_bytes=5,
        artifact_digest="a" * 64,
        artifact_size_bytes=7,
    )


FULL = DeviceSnapshot(
    revision=12,
    slots=(
        SlotSnapshot(
            slot="main",
            state=SlotState.PROBATION,
            champion=offer("1"),
            previous=offer("2"),
            candidate=Candidate(
                offer=offer("3"),
                attempts=2,
                corrupt_fetches=1,
            ),
            refused=Refusal(version=version("4"), cause="nan or inf", detail="é"),
            barred_digest="4" * 64,
        ),
    ),
)


def test_a_new_journal_is_an_empty_state(case):
    assert case.reopen().load() == (DeviceSnapshot(), "")


def test_what_was_saved_last_is_loaded(case):
    journal = case.reopen()
    journal.save(DeviceSnapshot(revision=1))
    journal.save(FULL)
    assert case.reopen().load() == (FULL, "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe\x00", b'{"revision": 4}', seal(b'{"revision": -4}'), seal(b"{")],
)
def test_a_damaged_journal_is_kept_aside_and_said(case, content):
    case.reopen().save(FULL)
    for time in (1, 2):
        case.damage(content)
        snapshot, problem = case.reopen().load()
        assert snapshot == DeviceSnapshot()
        assert "could not be read" in problem
        assert case.kept_aside() == [content] * time
    case.reopen().save(FULL)
    assert case.reopen().load() == (FULL, "")


def test_no_flipped_bit_is_believed(case):
    document = encode_journal(FULL)
    luck = random.Random(1)
    for place in luck.sample(range(len(document) * 8), 200):
        changed = bytearray(document)
        changed[place // 8] ^= 1 << (place % 8)
        case.damage(bytes(changed))
        snapshot, problem = case.reopen().load()
        assert (snapshot, bool(problem)) == (DeviceSnapshot(), True), place


def test_a_later_versions_keys_are_ignored(case):
    case.damage(seal(b'{"revision": 3, "slots": [{"slot": "main", "colour": "red"}], "new": {}}'))
    snapshot, problem = case.reopen().load()
    assert (snapshot.revision, snapshot.slots[0].slot, problem) == (3, "main", "")
