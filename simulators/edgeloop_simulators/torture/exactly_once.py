"""Telemetry exactly once, end to end: agents, broker and controller killed with -9 while it flows.

Several agents that only talk (`talker`), a real mosquitto that forgets everything when it is
killed, a real `edgeloop serve`. At random moments one of them is killed and started again, or all
three one after the other, until every agent has appended its share. Then everything is left alone
until the outboxes are empty, and the controller's database must hold each (epoch, sequence) once,
and each content once.

Invariant: what was appended is known from the agents' own word, given before they went on, not from
what any of the three kept.
"""

import asyncio
import os
import random
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeloop_simulators.finish import read_outbox
from edgeloop_simulators.live.middle import Middle, Program
from edgeloop_simulators.record import OutboxEpoch

RECORDS: Final = 1_000_000
AGENTS: Final = 4
KILLS: Final = {"agent": 46, "broker": 6, "controller": 6}
ROUNDS: Final = 14
"""In which one agent, the broker and the controller are killed."""
HELD_MAX: Final = 20_000
"""Of an agent; above it, it waits before it says more."""
PATIENCE_S: Final = 180.0
"""Without any progress it is given up."""
LOOK_S: Final = 0.05
KILL_WITHIN_S: Final = 0.5
"""After its number of records has come: so that no moment of a batch is spared."""

Progress = Callable[[int, int], None]
"""(records stored, of how many)."""


@dataclass(frozen=True)
class Plan:
    records: int = RECORDS
    agents: int = AGENTS
    held_max: int = HELD_MAX
    kills: tuple[tuple[str, int], ...] = tuple(KILLS.items())
    rounds: int = ROUNDS


@dataclass
class Outcome:
    """`problems` is empty: none lost, none twice."""

    stored: int = 0
    repeated: int = 0
    wall_s: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    boots: int = 0
    problems: list[str] = field(default_factory=list)


def why_not() -> str:
    """Why this part cannot be played here; empty: it can."""
    if shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        return "mosquitto is not installed"
    return ""


class ExactlyOnce:
    """One play in an empty directory; `play` once."""

    def __init__(self, directory: Path, plan: Plan, seed: int, progress: Progress) -> None:
        self._directory = directory
        self._plan = plan
        self._luck = random.Random(seed)  # noqa: S311 - no secret
        self._progress = progress
        self._talkers: dict[str, Program] = {}
        self._outcome = Outcome()

    def play(self) -> Outcome:
        """From the main thread: the kernel ends what it started with it."""
        began = time.monotonic()
        asyncio.run(self._play())
        self._outcome.wall_s = time.monotonic() - began
        return self._outcome

    async def _play(self) -> None:
        async with Middle(self._directory / "middle", self._plan.agents + 10) as middle:
            share = -(-self._plan.records // self._plan.agents)
            for number in range(1, self._plan.agents + 1):
                self._talkers[f"talker-{number}"] = self._talker(number, share, middle)
            try:
                for talker in self._talkers.values():
                    talker.start()
                await self._torture(middle, share)
                if not await self._emptied(middle, share):
                    self._outcome.problems.append("the outboxes are not empty in time")
            finally:
                for talker in self._talkers.values():
                    talker.end()
        self._judge(middle.database, share)

    def _talker(self, number: int, share: int, middle: Middle) -> Program:
        name = f"talker-{number}"
        directory = self._directory / name
        directory.mkdir()
        command = [sys.executable, "-m", "edgeloop_simulators.torture.talker", str(directory), name]
        options = {
            "--broker": str(middle.address.port),
            "--controller": middle.url,
            "--records": str(share),
            "--held": str(self._plan.held_max),
        }
        return Program(name, [*command, *(w for o in options.items() for w in o)], directory, 0)

    async def _torture(self, middle: Middle, share: int) -> None:
        """Each kill at its number of stored records: while they flow, not while one of the three is
        starting."""
        total = share * self._plan.agents
        struck: list[tuple[str, ...]] = [
            (what,) for what, count in self._plan.kills for _ in range(count)
        ]
        struck += [self._round() for _ in range(self._plan.rounds)]
        due = sorted((self._luck.uniform(0.02, 0.95) * total, those) for those in struck)
        async for come in self._looks(middle, total):
            if due and come >= due[0][0]:
                for what in due.pop(0)[1]:
                    await asyncio.sleep(self._luck.uniform(0, KILL_WITHIN_S))
                    self._kill(what, middle)
            if not due:
                return

    def _round(self) -> tuple[str, ...]:
        return tuple(self._luck.sample(("agent", "broker", "controller"), 3))

    async def _looks(self, middle: Middle, total: int) -> AsyncIterator[int]:
        """How many records are stored, again and again while there is progress."""
        seen, seen_at = (0, 0), time.monotonic()
        while time.monotonic() - seen_at < PATIENCE_S:
            appended = sum(told(self._directory / name).total() for name in self._talkers)
            now = (appended, stored(middle.database))
            if now != seen:
                seen, seen_at = now, time.monotonic()
            self._progress(now[1], total)
            yield now[1]
            await asyncio.sleep(LOOK_S)
        self._outcome.problems.append(f"no progress for {PATIENCE_S:.0f} s")

    def _kill(self, what: str, middle: Middle) -> None:
        program = {"broker": middle.broker, "controller": middle.controller}.get(what)
        program = program or self._luck.choice(list(self._talkers.values()))
        program.kill()
        program.start()
        self._outcome.kills[what] += 1

    async def _emptied(self, middle: Middle, share: int) -> bool:
        async for _ in self._looks(middle, share * self._plan.agents):
            outboxes = [self._outbox(name) for name in self._talkers]
            if all(
                sum(epoch.appended for epoch in epochs) >= share
                and not any(epoch.held for epoch in epochs)
                for epochs in outboxes
            ):
                return True
        return False

    def _outbox(self, name: str) -> Sequence[OutboxEpoch]:
        return read_outbox(name, self._directory / name / "state" / "outbox.sqlite")

    def _judge(self, database: Path, share: int) -> None:
        outcome = self._outcome
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for name in self._talkers:
                said = told(self._directory / name)
                outcome.boots += len(said)
                if said.total() < share - len(said):  # one that each kill struck was not told
                    outcome.problems.append(f"{name} appended {said.total()} of {share}")
                outcome.problems += problems_of(connection, name, said)
            outcome.stored = _count(connection, NUMBERED)
            outcome.repeated = _count(connection, "SELECT SUM(duplicates) FROM telemetry_cursors")


NUMBERED: Final = """
SELECT (SELECT COUNT(*) FROM windows) + (SELECT COUNT(*) FROM samples)
    + (SELECT COUNT(*) FROM events WHERE epoch IS NOT NULL)
"""
_ROWS: Final = """
SELECT epoch, sequence, manifest_digest || '/' || device_started_at AS content FROM windows
    WHERE device_id = :device
UNION ALL SELECT epoch, sequence, reference FROM samples WHERE device_id = :device
UNION ALL SELECT epoch, sequence, kind || data FROM events
    WHERE device_id = :device AND epoch IS NOT NULL
"""
_OF_EPOCHS: Final = f"""
SELECT epoch, COUNT(*), COUNT(DISTINCT sequence), COUNT(DISTINCT content), MIN(sequence),
    MAX(sequence) FROM ({_ROWS}) GROUP BY epoch
"""  # noqa: S608


def told(directory: Path) -> Counter[str]:
    """What an agent said that it had appended, by epoch."""
    try:
        files = list((directory / "told").iterdir())
    except FileNotFoundError:
        return Counter()
    return Counter({path.name: path.stat().st_size for path in files})


def stored(database: Path) -> int:
    """How far the controller has come, as it runs."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return _count(connection, "SELECT SUM(through) FROM telemetry_cursors")
    except sqlite3.Error:
        return 0


def problems_of(connection: sqlite3.Connection, device: str, said: Counter[str]) -> Iterator[str]:
    """Of one device, in words. The record that a kill struck may be there without having been
    told."""
    rows = {row[0]: row[1:] for row in connection.execute(_OF_EPOCHS, {"device": device})}
    for epoch in sorted(rows.keys() | said.keys()):
        count, numbers, contents, first, last = rows.get(epoch, (0, 0, 0, 1, 0))
        if count != numbers or count != contents:
            yield f"{device} {epoch}: {count} rows, {numbers} numbers, {contents} contents"
        if first != 1 or last != numbers:
            yield f"{device} {epoch}: {numbers} of 1 to {last} are stored"
        if not said[epoch] <= last <= said[epoch] + 1:
            yield f"{device} {epoch}: {said[epoch]} were appended, {last} came"
    lost = "SELECT SUM(lost + merged) FROM telemetry_cursors WHERE device_id = :device"
    if _count(connection, lost, device):
        yield f"{device}: {_count(connection, lost, device)} are counted as lost"


def _count(connection: sqlite3.Connection, query: str, device: str = "") -> int:
    return int(connection.execute(query, {"device": device}).fetchone()[0] or 0)
