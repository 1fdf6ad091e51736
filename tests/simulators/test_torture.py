"""Torture in small: the whole of it is `make torture`."""

import ast
import inspect
import logging
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeloop_agent.shell
from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell import factory_reset, os_disk
from edgeloop_agent.trust import metadata_store
from edgeloop_simulators.torture import (
    exactly_once,
    ext4_image,
    strict_disk,
    striker,
    syscalls,
    trust_store,
)
from edgeloop_simulators.torture.exactly_once import ExactlyOnce, Plan, problems_of, told
from edgeloop_simulators.torture.fsyncs import FSYNCS, By, prove
from edgeloop_simulators.torture.power import PowerCuts
from edgeloop_simulators.torture.promises import Ledger, done
from edgeloop_simulators.torture.shelf import fill
from edgeloop_simulators.torture.syscalls import Fault, Syscalls
from edgeloop_simulators.torture.verdict import broken
from edgeloop_simulators.virtual.seeds.mutation import Mutant, plant

needs_ext4 = pytest.mark.skipif(bool(ext4_image.why_not()), reason=ext4_image.why_not())
needs_mosquitto = pytest.mark.skipif(bool(exactly_once.why_not()), reason=exactly_once.why_not())
needs_strace = pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
SYNCS = {"sync", "sync_directory", "sync_names", "fsync", "_sync_directory"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shelf")
    fill(directory)
    return directory


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """An agent under torture complains at each step."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_fault_at_every_operation_leaves_an_old_version_or_a_new_one(shelf: Path) -> None:
    struck = list(strict_disk.play(shelf))
    assert len(struck) > 250
    assert any(".patched" in one.operation for one in struck)
    assert {one.fault for one in struck} == set(striker.Fault)
    assert [one for one in struck if one.problems] == []


def test_a_fault_at_every_operation_of_the_trust_store_loses_nothing_kept() -> None:
    struck = list(trust_store.play())
    assert len(struck) > 150
    assert {one.fault for one in struck} == set(striker.Fault)
    assert [one for one in struck if one.problems] == []


@pytest.mark.parametrize("name", [n for n, f in FSYNCS.items() if f.found_by is not By.POWER_CUTS])
def test_without_an_fsync_a_power_cut_costs_something(shelf: Path, name: str) -> None:
    assert prove(name, shelf, seed=1).found


@pytest.mark.parametrize("name", ["file", "name"])
def test_without_those_of_a_durable_write_verified_metadata_is_lost(name: str) -> None:
    with plant(Mutant("as listed", (FSYNCS[name].edit,), seed=1)):
        assert any(one.problems for one in trust_store.play())


@needs_ext4
@pytest.mark.parametrize("name", [n for n, f in FSYNCS.items() if f.found_by is By.POWER_CUTS])
def test_without_the_real_disks_fsync_a_power_cut_costs_something(shelf: Path, name: str) -> None:
    assert prove(name, shelf, seed=1).found


def test_every_fsync_of_the_agent_is_on_the_list() -> None:
    """But for those that make the state directory itself, and that empty it: they have tests of
    their own."""
    directory = Path(inspect.getfile(edgeloop_agent.shell)).parent
    store = Path(inspect.getfile(metadata_store))
    found = Counter(
        f"{path.stem}:{function}"
        for path in (*directory.glob("*.py"), store)
        for function in _syncs(path)
    )
    listed = Counter(
        fsync.edit.function.removeprefix("edgeloop_agent.").partition(".")[2]
        for name, fsync in FSYNCS.items()
        if name != "outbox"
    )
    passed_on = Counter({"os_disk:OsDisk.sync_directory": 1, "os_disk:_make_durably": 1})
    assert found == listed + passed_on + Counter({"factory_reset:_sync": 1})


def _syncs(path: Path) -> Iterator[str]:
    """The functions that sync, once for each call."""
    for outer in ast.parse(path.read_text()).body:
        functions = outer.body if isinstance(outer, ast.ClassDef) else [outer]
        prefix = f"{outer.name}." if isinstance(outer, ast.ClassDef) else ""
        for function in functions:
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                called = node.func if isinstance(node, ast.Call) else None
                name = getattr(called, "attr", getattr(called, "id", ""))
                if name in SYNCS:
                    yield prefix + function.name


def test_a_state_directory_is_made_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is synced in it would else be lost with it."""
    synced: list[Path] = []
    monkeypatch.setattr(os_disk, "_sync_directory", synced.append)
    os_disk.OsDisk(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    os_disk.OsDisk(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_what_a_reset_takes_away_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each removal is synced in its directory, keys first: a power cut brings none back."""
    config = AgentConfig.model_validate(
        {
            "device_id": "d1",
            "controller_url": "http://127.0.0.1:1",
            "state_dir": tmp_path,
            "slots": {"main": {"source": {"kind": "lines"}, "sink": {"kind": "none"}}},
        }
    )
    for name in ("identity", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "journal.json").write_text("{}")
    left: list[list[str]] = []
    monkeypatch.setattr(
        factory_reset, "_sync", lambda at: left.append(sorted(path.name for path in at.iterdir()))
    )
    factory_reset.reset(config)
    names = [[name for name in one if not name.endswith(".lock")] for one in left]
    assert names == [["journal.json", "models"], ["models"], []]


@needs_ext4
def test_nobody_else_keeps_an_image_mounted(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Whoever takes a mount namespace of his own, as each confined runner does, takes a copy of the
    mounts: a disk looked at next would be written to by the file system of the one before."""
    stranger = subprocess.Popen(
        ["sh", "-c", "read _; exec unshare --mount sleep 60"], stdin=subprocess.PIPE
    )
    mounts = Path(f"/proc/{stranger.pid}/mounts")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    ext4_image.make_image(image)
    try:
        with ext4_image.in_private(), ext4_image.mounted(image, place):
            assert str(place) in Path("/proc/thread-self/mounts").read_text()
            namespace = Path(f"/proc/{stranger.pid}/ns/mnt")
            before = namespace.readlink()
            assert stranger.stdin is not None
            stranger.stdin.write(b"\n")
            stranger.stdin.flush()
            wait_until(lambda: namespace.readlink() != before)
            assert str(place) not in mounts.read_text()
        assert Path.cwd() != Path("/")
    finally:
        stranger.kill()
        stranger.wait()
        assert stranger.stdin is not None
        stranger.stdin.close()


@needs_ext4
@pytest.mark.timeout(900)
def test_power_cuts_on_ext4(shelf: Path) -> None:
    with PowerCuts(shelf, seed=7) as cuts:
        played = list(cuts.play(20))
    assert len(played) == 20
    assert [cut for cut in played if cut.problems] == []


@needs_strace
@pytest.mark.timeout(300)
def test_faults_at_system_calls(shelf: Path) -> None:
    """Every second fsync and rename of the journal and of the versions, with one of the faults or a
    kill, and a full disk at each start of the outbox; `make torture` strikes at all with all."""
    tortured = Syscalls(shelf)
    try:
        points = tortured.points()
        kinds = {(point.call, point.path) for point in points}
        assert ("rename", "journal.json.tmp") in kinds
        assert ("fsync", "models") in kinds
        chosen = [p for p in points if p.call in ("fsync", "rename") and "status" not in p.path]
        struck = [
            *tortured.strike_all(chosen[::6], [Fault.KILL], jobs=1),
            *tortured.strike_all(chosen[2::6], [Fault.BROKEN], jobs=1),
            *tortured.strike_all(chosen[4::6], [Fault.FULL], jobs=1),
            *tortured.strike_all(
                [p for p in points if p.path.startswith(("outbox", "agent.lock")) and p.place == 1],
                [Fault.FULL],
                jobs=1,
            ),
        ]
    finally:
        tortured.close()
    assert sum(one.was_reached for one in struck) > 0.8 * len(struck)
    assert [one for one in struck if one.problems] == []
    assert all(one.starts == 1 for one in struck if one.fault is not Fault.KILL)


def test_what_was_promised_is_looked_for(tmp_path: Path) -> None:
    """The judge itself: a disk with nothing on it keeps no promise."""
    assert broken(tmp_path, Ledger()) == []
    ledger = Ledger(revision=3, champions={"default": "1" * 64}, appended={"e": 2})
    ledger.received["e"] = {1}
    laws = [problem.partition(":")[0] for problem in broken(tmp_path, ledger)]
    assert laws == ["EL-INV-4", "EL-INV-1", "EL-TEL-3"]
    ledger.take(done())
    assert ledger.missing() == ["e"]
    ledger.appended["e"] = 3  # of what runners say at their end, the next start tells
    ledger.received["e"] = {1, 2}
    assert ledger.missing() == []


@needs_mosquitto
@pytest.mark.timeout(300)
def test_telemetry_comes_exactly_once_under_kill_9(tmp_path: Path) -> None:
    """EL-TEL-2, EL-TEL-3. The judge is then shown databases in which it did not."""
    plan = Plan(records=4000, agents=2, held_max=500, kills=(("agent", 2),), rounds=3)
    outcome = ExactlyOnce(tmp_path, plan, 1, lambda _stored, _total: None).play()
    assert outcome.problems == []
    assert outcome.kills == {"agent": 5, "broker": 3, "controller": 3}
    assert outcome.boots >= 2 + 3, "one that is killed at once has said nothing"
    assert outcome.stored >= 4000

    device, database = "talker-1", tmp_path / "middle" / "data" / "edgeloop.sqlite"
    said = told(tmp_path / device)
    assert list(_problems(database, device, said)) == []
    numbered = f"device_id = '{device}' AND kind = 'device.talked'"
    for spoil, word in (
        (f"DELETE FROM events WHERE id = (SELECT MIN(id) FROM events WHERE {numbered})", "of 1 to"),
        (
            "INSERT INTO events (at, kind, subject, data, device_id, epoch, sequence) "
            "SELECT at, kind, subject, data, device_id, epoch, sequence + 100000 FROM events "
            f"WHERE {numbered} LIMIT 1",
            "contents",
        ),
        ("UPDATE telemetry_cursors SET lost = 1", "counted as lost"),
        (f"DELETE FROM events WHERE {numbered}", "were appended"),
    ):
        spoilt = tmp_path / "spoilt.sqlite"
        shutil.copy(database, spoilt)
        with sqlite3.connect(spoilt) as connection:
            connection.execute(spoil)
        connection.close()
        assert any(word in problem for problem in _problems(spoilt, device, said)), spoil


def _problems(database: Path, device: str, said: Counter[str]) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return list(problems_of(connection, device, said))
    finally:
        connection.close()
