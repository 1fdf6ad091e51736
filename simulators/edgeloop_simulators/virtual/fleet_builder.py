"""A fleet in a test: devices, data, versions and what befalls them, said in a few lines.

Invariants: what is built is a scenario, checked as a file's would be; nothing runs before `run`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgeloop_simulators.virtual.models.function import Scores
from edgeloop_simulators.virtual.run.play import Run, play
from edgeloop_simulators.virtual.run.recording import Alarm, RolloutRecord
from edgeloop_simulators.virtual.scenario.file import VirtualScenario
from edgeloop_simulators.virtual.scenario.load import scenario_of
from edgeloop_simulators.virtual.scenario.model_tables import (
    FunctionTable,
    OnnxTable,
    SyntheticTable,
    TrainedTable,
)
from edgeloop_simulators.virtual.scenario.values import seconds
from edgeloop_simulators.virtual.scenario_command import write_report

Time = float | str
"""Seconds, or a text such as "2 h" or "1 d 6 h"."""

TestedTable = Annotated[
    SyntheticTable | OnnxTable | TrainedTable | FunctionTable, Field(discriminator="kind")
]


class TestedScenario(VirtualScenario):
    """A scenario whose models may be Python functions."""

    __test__ = False  # it is none of pytest's classes
    # More than stands in a file, so no narrower type:
    models: tuple[TestedTable, ...] = Field(min_length=1)  # type: ignore[assignment]


class FleetRun:
    """What came of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def rollout(self, model: str) -> RolloutRecord:
        """The last rollout of `name@version`. Raises AssertionError when there was none."""
        found = [one for one in self.run.recording.rollouts if one.version == model]
        assert found, f"{model} was never rolled out"
        return found[-1]

    def champions(self, target: str = "*") -> dict[str, int]:
        """Version → how many devices run it at the end; `nothing` for none."""
        recording = self.run.recording
        return dict(
            Counter(recording.champion(d.id) or "nothing" for d in recording.targets(target))
        )

    def accuracy(self, target: str = "*", after: Time = 0, before: Time = 1e9) -> float:
        """The share of right answers. Raises AssertionError when there were none."""
        devices = {device.id for device in self.run.recording.targets(target)}
        found = self.run.recording.accuracy(devices, seconds(after), seconds(before))
        assert found is not None, f"{target} answered nothing between {after} and {before}"
        return found

    @property
    def drift_alarms(self) -> tuple[Alarm, ...]:
        return self.run.recording.alarms

    @property
    def false_rollbacks(self) -> list[tuple[str, str, str]]:
        """(device, version, cause), of versions that were not published as bad."""
        return self.run.recording.false_rollbacks()

    @property
    def bytes_up_per_device_day(self) -> float:
        return self.run.recording.bytes_up_per_device_day()

    def report(self, directory: Path) -> Path:
        """Write report.html and report.json there; returns the page."""
        directory.mkdir(parents=True, exist_ok=True)
        write_report(self.run, directory)
        return directory / "report.html"


class Fleet:
    """Each method adds one table of a scenario file (docs/scenarios.md) and takes its keys."""

    def __init__(self, directory: Path, report: Path | None = None) -> None:
        """`directory`: where relative paths start from; `report`: where `run` writes its report."""
        self._directory = directory
        self._report = report
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._document: dict[str, Any] = {"world": "virtual", "title": "a fleet in a test"}

    def device_class(self, name: str, **keys: Any) -> None:
        self._add("classes", name=name, **keys)

    def devices(self, site: str, count: int, **keys: Any) -> None:
        """`NAME-1`, `NAME-2`, …; of a `device_class`, with the other keys of a site."""
        kind = keys.pop("device_class", "standard")
        self._add("sites", name=site, devices=count, **{"class": kind}, **keys)

    def data(self, kind: str, **keys: Any) -> None:
        """`watch`, `machines`, `tabular` or `synthetic`."""
        self._document["data"] = {"kind": kind, **keys}

    def publish(
        self, model: str, source: Path | str | Scores, *, bad: bool = False, **keys: Any
    ) -> None:
        """An ONNX file, or a function from features to scores. `bad`: a rollback is right."""
        if callable(source):
            self._add("models", kind="function", name=model, function=source, bad=bad)
        else:
            self._add("models", kind="onnx", name=model, file=str(source), bad=bad, **keys)

    def synthetic(self, model: str, **keys: Any) -> None:
        self._add("models", kind="synthetic", name=model, **keys)

    def trained(self, model: str, **keys: Any) -> None:
        self._add("models", kind="trained", name=model, **keys)

    def roll_out(
        self,
        model: str,
        *,
        at: Time = 0,
        waves: tuple[str, ...] | list[str] = ("1", "50%", "100%"),
        selector: str = "all",
        **terms: Any,
    ) -> None:
        """`terms`: as POST /v1/rollouts takes them, such as `soak_s` or `probation`."""
        self._add(
            "steps",
            do="roll_out",
            model=model,
            at=at,
            waves=list(waves),
            selector=selector,
            terms=terms,
        )

    def drift(self, at: Time, phase: str = "after", **keys: Any) -> None:
        self._add("drift", at=at, phase=phase, **keys)

    def break_sensor(self, at: Time, device: str, sensor: str, **keys: Any) -> None:
        self._add("broken_sensors", at=at, device=device, sensor=sensor, **keys)

    def fault(self, kind: str, *, at: Time = 0, **keys: Any) -> None:
        self._add("faults", kind=kind, at=at, **keys)

    def settings(self, **tables: Mapping[str, Any]) -> None:
        """`agent`, `controller`, `retraining`: as in a scenario file."""
        self._document |= tables

    def run(self, duration: Time, *, seed: int = 0, check: bool = True) -> FleetRun:
        """Raises AssertionError, unless `check` is False, when a law was broken, the fleet did not
        converge, a device is wedged, or telemetry was lost or doubled; ScenarioError for what
        cannot be run."""
        document = {**self._document, **self._tables, "duration": duration}
        loaded = scenario_of(document, self._directory, TestedScenario)
        run = play(loaded, seed)
        found = FleetRun(run)
        if self._report is not None:
            found.report(self._report)
        broken = [str(one) for one in run.checks if not one.passed]
        assert not (check and broken), "\n".join(broken)
        return found

    def _add(self, key: str, **table: Any) -> None:
        self._tables.setdefault(key, []).append(table)
