"""The Disk port's contract, on the real adapter and the twin; and the twin's law of power cuts."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_agent.shell import durable_files
from edgeloop_agent.shell.durable_files import write_all, write_durably
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_simulators.twins.disk import MemoryDisk


@pytest.fixture(params=["os", "memory"])
def disk(request, tmp_path):
    return OsDisk(tmp_path) if request.param == "os" else MemoryDisk()


def put(disk, path, content, append=False):
    with disk.open(path, append=append) as file:
        write_all(file.write, content)
        file.sync()


def test_what_is_written_is_read(disk):
    put(disk, "a", b"one")
    assert (disk.read("a"), disk.size("a")) == (b"one", 3)
    put(disk, "a", b"two!")
    assert disk.read("a") == b"two!", "opened for writing it is emptied"
    put(disk, "a", b" more", append=True)
    assert disk.read("a") == b"two! more"


def test_what_is_not_there(disk):
    assert disk.size("a") is None
    assert disk.digest("a") is None
    disk.remove("a")
    for act in (
        lambda: disk.read("a"),
        lambda: disk.rename("a", "b"),
        lambda: disk.list("a"),
        lambda: disk.sync_directory("a"),
        lambda: put(disk, "no/where", b""),
        lambda: disk.make_directory("no/where"),
    ):
        with pytest.raises(FileNotFoundError):
            act()


def test_a_digest_is_sha256(disk):
    put(disk, "a", b"abc")
    assert disk.digest("a").startswith("ba7816bf")


def test_directories(disk):
    disk.make_directory("d")
    disk.make_directory("d")
    disk.make_directory("d/e")
    put(disk, "d/x", b"x")
    put(disk, "d/e/y", b"y")
    assert disk.list("") == ("d/",)
    assert disk.list("d") == ("e/", "x")
    with pytest.raises(IsADirectoryError):
        disk.read("d")
    disk.sync_directory("d")
    disk.remove_tree("d")
    assert disk.list("") == ()
    disk.remove_tree("d")


def test_a_rename_replaces(disk):
    disk.make_directory("d")
    put(disk, "a", b"new")
    put(disk, "d/b", b"old")
    disk.rename("a", "d/b")
    assert (disk.list(""), disk.read("d/b")) == (("d/",), b"new")


def test_removed_is_gone(disk):
    put(disk, "a", b"x")
    disk.remove("a")
    assert disk.list("") == ()


def test_there_is_room(disk):
    assert disk.free_bytes() > 0


def test_a_new_root_is_durable_up_to_what_was_there(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    OsDisk(tmp_path / "var" / "agent")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "var").stat().st_ino]
    OsDisk(tmp_path / "var" / "agent")
    assert len(synced) == 2


# ---- the twin alone ------------------------------------------------------------------------------

STEPS = st.lists(st.sampled_from(["write", "sync", "rename", "append", "remove"]), max_size=8)


@given(steps=STEPS, seed=st.integers(0, 10**6), cut_at=st.integers(0, 12))
def test_a_durable_file_is_old_or_new_after_a_power_cut(steps, seed, cut_at):
    """EL-LIFE-1 rests on this law."""

    class Cut(BaseException):
        pass

    disk = MemoryDisk()
    write_durably(disk, "file", b"old")
    for step in steps:
        _disturb(disk, step)
    left = cut_at

    def before(operation, path):
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut

    disk.before = before
    finished = False
    try:
        write_durably(disk, "file", b"brand new")
        finished = True
    except Cut:
        pass
    disk.before = None
    disk.power_cut(random.Random(seed))
    assert disk.read("file") in ((b"brand new",) if finished else (b"old", b"brand new"))


def _disturb(disk, step):
    if step == "write":
        put(disk, "other", b"12345")
    elif step == "append":
        with disk.open("other", append=True) as file:
            file.write(b"678")
    elif step == "sync":
        disk.sync_directory("")
    elif step == "rename" and disk.size("other") is not None:
        disk.rename("other", "another")
    else:
        disk.remove("other")


@pytest.mark.parametrize("left_out", ["sync_directory", "sync"])
def test_without_any_one_sync_a_power_cut_loses_the_file(left_out, monkeypatch):
    """So the law above can fail."""
    outcomes = set()
    for seed in range(200):
        disk = MemoryDisk()
        write_durably(disk, "file", b"old")
        with monkeypatch.context() as patch:
            if left_out == "sync_directory":
                patch.setattr(MemoryDisk, "sync_directory", lambda self, path: None)
            else:
                patch.setattr("edgeloop_simulators.twins.disk._File.sync", lambda self: None)
            durable_files.write_durably(disk, "file", b"brand new")
        disk.power_cut(random.Random(seed))
        outcomes.add(disk.read("file"))
    assert outcomes - {b"brand new"}


def test_a_full_twin_says_so_and_handles_die_with_their_process():
    disk = MemoryDisk(capacity_bytes=4)
    with disk.open("a") as file:
        file.write(b"1234")
        with pytest.raises(OSError, match="No space left"):
            file.write(b"5")
        disk.process_killed()
        with pytest.raises(OSError, match="is gone"):
            file.write(b"")
    assert disk.read("a") == b"1234"
    assert disk.free_bytes() == 0


def test_a_flipped_bit_changes_one_bit():
    disk = MemoryDisk()
    put(disk, "a", bytes(100))
    disk.flip_bit("a", random.Random(1))
    assert sum(byte.bit_count() for byte in disk.read("a")) == 1


def test_a_twin_takes_what_there_is_room_for():
    disk = MemoryDisk(capacity_bytes=4)
    with disk.open("a") as file, pytest.raises(OSError, match="No space left"):
        write_all(file.write, b"123456")
    assert disk.read("a") == b"1234"


def test_a_flip_makes_nothing_durable():
    disk = MemoryDisk()
    put(disk, "a", b"")
    disk.sync_directory("")
    with disk.open("a", append=True) as file:
        file.write(b"late")
    disk.flip_bit("a", random.Random(1))
    assert disk.durable("a") == b""


def test_what_was_renamed_away_and_synced_does_not_come_back():
    for seed in range(50):
        disk = MemoryDisk()
        disk.make_directory("d")
        disk.sync_directory("")
        put(disk, "a", b"x")
        disk.rename("a", "d/b")
        disk.sync_directory("d")
        disk.power_cut(random.Random(seed))
        assert disk.files() == ("d/b",)


def test_the_dead_do_nothing_more():
    class Killed(BaseException):
        pass

    def kill(operation, path):
        disk.before = None
        raise Killed

    def write_and_be_killed():
        with disk.open("a") as file:
            disk.before = kill
            try:
                file.write(b"x")
            finally:
                file.sync()

    disk = MemoryDisk()
    for act in (write_and_be_killed, lambda: disk.sync_directory("")):
        with pytest.raises(Killed):
            act()
    assert disk.durable("a") is None
    disk.power_cut(random.Random(1))
    put(disk, "a", b"again")
    assert disk.read("a") == b"again"


def test_a_tree_that_cannot_be_removed_is_left_without_an_error():
    def refuse(operation, path):
        if operation == "remove" and path == "d/x":
            raise OSError(5, "Input/output error", path)

    disk = MemoryDisk()
    disk.make_directory("d")
    put(disk, "d/x", b"")
    put(disk, "d/y", b"")
    disk.before = refuse
    disk.remove_tree("d")
    assert disk.list("d") == ("x",)
