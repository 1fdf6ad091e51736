"""A run as it lies on disk, read back: the testbed's own files and the controller's database.

Invariants: nothing here computes a figure, and nothing is written; the database is opened
read-only. All times are seconds since 1970 by the one machine that the run was on.

    <out>/run/answers.jsonl    every answered window with its true label
    <out>/run/marks.jsonl      what the world did
    <out>/run/scores.jsonl     drift scores, as `GET /v1/drift` gave them during the run
    <out>/run/trained_on.json  manifest digest to the windows that it was trained on
    <out>/run/outboxes.json    what each agent's outbox said at the end
    <out>/run/controller/data/edgeloop.sqlite
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.references import RowRanges
from edgeloop_simulators.truth import Answer, Mark

Row = Mapping[str, Any]
Number = tuple[str, str, int]
"""(device, epoch, sequence): an agent numbers the records of each of its boots from 1."""


@dataclass(frozen=True)
class OutboxEpoch:
    """One boot of one agent: it appended 1 to `appended`, and still holds the last `held`."""

    device: str
    epoch: str
    appended: int
    held: int
    dropped: int


@dataclass(frozen=True)
class Record:
    """`telemetry` has one (device, epoch, sequence) for each stored row of any kind."""

    answers: tuple[Answer, ...]
    marks: tuple[Mark, ...]
    scores: tuple[Row, ...]
    trained: Mapping[str, RowRanges]
    outboxes: tuple[OutboxEpoch, ...]
    versions: tuple[Row, ...]
    devices: tuple[Row, ...]
    rollouts: tuple[Row, ...]
    members: tuple[Row, ...]
    alarms: tuple[Row, ...]
    training_runs: tuple[Row, ...]
    ran: frozenset[tuple[str, str]]
    """(device, manifest digest) of every telemetry window."""
    telemetry: tuple[Number, ...]
    contents: tuple[tuple[Number, tuple[Any, ...]], ...]
    """Each stored window's and sample's number with what it says: device, slot, version, when it
    began or was taken by the device's clock, and a sample's reference."""

    def first(self, kind: str) -> Mark | None:
        return next((mark for mark in self.marks if mark.kind == kind), None)

    def digest_of(self, kind: str) -> str | None:
        """The manifest digest of the first version that was published as `kind`."""
        for mark in self.marks:
            if mark.kind == "version.published" and mark.data.get("is") == kind:
                return str(mark.data["manifest_digest"])
        return None


QUERIES = {
    "versions": "select * from versions order by published_at",
    "devices": "select id, bytes_up, first_seen_at, last_seen_at from devices order by id",
    "rollouts": "select * from rollouts order by id",
    "members": "select * from rollout_members order by rollout_id, wave, device_id",
    "alarms": "select * from drift_alarms order by raised_at",
    "training_runs": "select * from training_runs order by id",
}
RAN = "select distinct device_id, manifest_digest from windows"
TELEMETRY = """
    select device_id, epoch, sequence from windows
    union all select device_id, epoch, sequence from samples
    union all select device_id, epoch, sequence from events
        where device_id is not null and sequence is not null
"""
CONTENTS = """
    select device_id, epoch, sequence, slot, manifest_digest, device_started_at, null from windows
    union all
    select device_id, epoch, sequence, slot, manifest_digest, device_taken_at, reference
        from samples
"""


def run_directory(out: Path) -> Path:
    return out / "run"


def database_of(out: Path) -> Path:
    return run_directory(out) / "controller" / "data" / "edgeloop.sqlite"


def read_record(out: Path, database: Path | None = None) -> Record:
    """Raises RecordError when `out` holds no run. `database`: another one than the run's own."""
    directory = run_directory(out)
    path = database or database_of(out)
    if not (directory / "marks.jsonl").is_file() or not path.is_file():
        raise RecordError(
            f"{out} holds no run: make one with edgeloop-sim run SCENARIO --out {out}"
        )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        tables = {
            name: tuple(dict(row) for row in connection.execute(query))
            for name, query in QUERIES.items()
        }
        ran = frozenset((row[0], row[1]) for row in connection.execute(RAN))
        telemetry = tuple((row[0], row[1], row[2]) for row in connection.execute(TELEMETRY))
        contents = tuple(
            ((row[0], row[1], row[2]), (row[0], *row[3:])) for row in connection.execute(CONTENTS)
        )
    return Record(
        answers=tuple(Answer(**line) for line in _lines(directory / "answers.jsonl")),
        marks=tuple(Mark(**line) for line in _lines(directory / "marks.jsonl")),
        scores=tuple(_lines(directory / "scores.jsonl")),
        trained={digest: RowRanges(r) for digest, r in _json(directory, "trained_on.json").items()},
        outboxes=tuple(OutboxEpoch(**one) for one in _json(directory, "outboxes.json") or ()),
        ran=ran,
        telemetry=telemetry,
        contents=contents,
        **tables,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Each complete line of a JSON lines file; none when there is no such file."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # a killed run may leave half a line
                    yield json.loads(line)


def _json(directory: Path, name: str) -> Any:
    path = directory / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
