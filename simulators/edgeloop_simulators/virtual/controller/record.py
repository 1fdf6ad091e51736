"""The controller's database, read from beside it: what is committed, and nothing else.

Invariants: never writes; sees only what a kill of the controller would leave; says each row of the
event log and each change of a rollout once.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class News:
    what: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RolloutRow:
    id: int
    digest: str
    version: str
    selector: str
    waves: tuple[str, ...]
    status: str
    wave: int
    verdict: str


class ControllerRecord:
    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self._event_id = 0
        self._rollouts: dict[int, Mapping[str, Any]] = {}
        self._version = -1

    def close(self) -> None:
        self._database.close()

    def query(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        return self._database.execute(statement, parameters).fetchall()

    def has_changed(self) -> bool:
        """Whether anything was committed since this was asked last; ask before `news`."""
        ((version,),) = self.query("PRAGMA data_version")
        changed, self._version = version != self._version, version
        return bool(changed)

    def news(self, counts: bool = True) -> Iterator[News]:
        """Without `counts`, of rollouts only those that went on to another wave or status."""
        rows = self.query(
            "SELECT id, kind, subject, data FROM events WHERE id > ? ORDER BY id", (self._event_id,)
        )
        for event_id, kind, subject, data in rows:
            self._event_id = event_id
            yield News(f"event.{kind}", {"subject": subject, **json.loads(data)})
        for rollout in self.rollouts():
            known = self._rollouts.get(rollout.id, {})
            stands = (rollout.status, rollout.wave)
            if not counts and stands == (known.get("status"), known.get("wave")):
                continue
            phases = dict(
                self.query(
                    "SELECT phase, COUNT(*) FROM rollout_members WHERE rollout_id = ? "
                    "GROUP BY phase",
                    (rollout.id,),
                )
            )
            told = {
                "id": rollout.id,
                "version": rollout.version,
                "status": rollout.status,
                "wave": rollout.wave,
                "verdict": rollout.verdict,
                **{
                    phase: phases.get(phase, 0)
                    for phase in ("offered", "committed", "failed", "withdrawn", "ineligible")
                },
            }
            if known != told:
                self._rollouts[rollout.id] = told
                yield News("rollout", told)

    def labels(self) -> dict[str, dict[str, str]]:
        """The effective labels of each device: the controller's over the agent's own."""
        rows = self.query("SELECT id, agent_labels, labels FROM devices ORDER BY id")
        merged = {id_: {**json.loads(own), **json.loads(given)} for id_, own, given in rows}
        return {
            id_: {name: value for name, value in labels.items() if value != ""}
            for id_, labels in merged.items()
        }

    def verdicts(self) -> dict[int, str]:
        """Rollout → version, status and verdict, in words."""
        return {row.id: f"{row.version} {row.status}: {row.verdict}" for row in self.rollouts()}

    def rollouts(self) -> list[RolloutRow]:
        rows = self.query(
            "SELECT rollouts.id, rollouts.manifest_digest, name || '@' || version, selector, "
            "waves, status, wave, verdict FROM rollouts JOIN versions "
            "ON versions.manifest_digest = rollouts.manifest_digest ORDER BY rollouts.id"
        )
        return [
            RolloutRow(
                id_, digest, version, selector, tuple(json.loads(waves)), status, wave, verdict
            )
            for id_, digest, version, selector, waves, status, wave, verdict in rows
        ]
