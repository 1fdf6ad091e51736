"""A scenario file becomes a world: devices, models, script and faults, as values.

Invariants: depends on the file, the seed and the files that it names alone; what generates or
replays data stands behind `Source`, one for each kind of [data].
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from edgeloop_protocol.manifest import Artifact, Requirements
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.models.generated import GeneratedModel, Sensors, manifest_of
from edgeloop_simulators.virtual.scenario.file import VirtualScenario
from edgeloop_simulators.virtual.scenario.fleet_tables import ClassTable, SiteTable
from edgeloop_simulators.virtual.scenario.load import LoadedVirtual
from edgeloop_simulators.virtual.scenario.model_tables import (
    FunctionTable,
    ModelTable,
    OnnxTable,
    SyntheticData,
    SyntheticTable,
    TrainedTable,
)
from edgeloop_simulators.virtual.scenario.step_tables import (
    ChallengeStep,
    EndChallengeStep,
    FaultTable,
    LabelStep,
    OperatorStep,
    RollOutStep,
)
from edgeloop_simulators.virtual.spec.behaviour import Surroundings
from edgeloop_simulators.virtual.spec.faults import (
    OF_THE_BROKER,
    OF_THE_CONTROLLER,
    Fault,
    FaultKind,
    draw,
)
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceClass,
    DeviceSpec,
    EndChallengers,
    EndRollouts,
    Link,
    ModelSpec,
    Publish,
    SetLabels,
    StartChallenger,
    StartRollout,
    Step,
    WorldSpec,
)

FAULTY_SHARE: Final = 0.8
"""Of the duration, in which rates draw faults unless the file says until when."""
HEARTBEAT_TIMEOUT_S_MIN: Final = 30.0
HEARTBEATS_MISSED: Final = 3.0
"""A runner that said nothing for so many times of `progress` counts as hung."""


class Source(Protocol):
    """What devices see, and the models that answer it."""

    def streams(self) -> Sequence[str]:
        """Dealt to the devices in turn."""

    def models(self) -> tuple[ModelSpec, ...]:
        """In the file's order."""

    def retraining(self) -> RetrainingSpec | None: ...


@dataclass(frozen=True)
class Built:
    """`bad`: version → architectures on which it is bad; `None` among them: on all."""

    spec: WorldSpec
    faults: tuple[Fault, ...]
    versions: tuple[str, ...]
    bad: Mapping[str, frozenset[str | None]]

    def is_bad(self, version: str, architecture: str) -> bool:
        on = self.bad.get(version, frozenset())
        return None in on or architecture in on


def build(loaded: LoadedVirtual, seed: int, directory: Path) -> Built:
    """`directory` must stay as long as the world runs: training writes there. Raises a
    SimulatorError where files that the scenario names cannot be used."""
    scenario = loaded.scenario
    source = _source(loaded, directory)
    devices = tuple(_devices(scenario, source.streams()))
    spec = WorldSpec(
        devices=devices,
        models=source.models(),
        script=tuple(_script(scenario)),
        faults_end_s=_faults_end_s(scenario),
        duration_s=scenario.duration,
        agent=AgentTiming(
            progress_s=scenario.agent.progress,
            window_s=scenario.agent.window,
            examples_per_s=scenario.agent.examples_per_s,
            sample_fraction=scenario.agent.sample,
            heartbeat_timeout_s=max(
                HEARTBEAT_TIMEOUT_S_MIN, HEARTBEATS_MISSED * scenario.agent.progress
            ),
            outbox_max_bytes=scenario.agent.outbox,
        ),
        controller=ControllerTiming(
            ingest_s=scenario.controller.ingest,
            tick_s=scenario.controller.tick,
            drift_s=scenario.controller.drift,
            retrain_s=scenario.controller.retrain,
            offline_after_s=scenario.controller.offline_after,
        ),
        broker=scenario.broker,
        joins_over_s=scenario.joins_over,
        retraining=source.retraining(),
    )
    return Built(
        spec=spec,
        faults=_faults(scenario, devices, seed),
        versions=tuple(table.name for table in scenario.models),
        bad=_bad(scenario),
    )


# ---- devices ------------------------------------------------------------------------------------


def _devices(scenario: VirtualScenario, streams: Sequence[str]) -> list[DeviceSpec]:
    classes = {"standard": DeviceClass()} | {c.name: _class(c) for c in scenario.classes}
    found: list[DeviceSpec] = []
    for site in scenario.sites:
        for number in range(1, site.devices + 1):
            device = _device(site, number, classes[site.device_class])
            stream = streams[len(found) % len(streams)]
            found.append(replace(device, surroundings=_surroundings(scenario, device, stream)))
    return found


def _device(site: SiteTable, number: int, kind: DeviceClass) -> DeviceSpec:
    return DeviceSpec(
        id=f"{site.name}-{number}",
        site=site.name,
        kind=kind,
        labels={"site": site.name, **site.labels},
        utc_offset_h=site.utc_offset_h,
    )


def _class(table: ClassTable) -> DeviceClass:
    return DeviceClass(
        name=table.name,
        architecture=table.architecture,
        memory_bytes=table.memory,
        disk_bytes=table.disk,
        cpu_speed=table.cpu_speed,
        link=Link(
            latency_s=table.link.latency,
            jitter_s=table.link.jitter,
            bytes_per_s=table.link.bytes_per_s,
            loss=table.link.loss,
        ),
        connected=table.connected,
        powered=table.powered,
    )


def _surroundings(scenario: VirtualScenario, device: DeviceSpec, stream: str) -> Surroundings:
    drifts = sorted(
        (drift for drift in scenario.drift if is_target(device, drift.target)),
        key=lambda drift: drift.at,
    )
    broken = [table for table in scenario.broken_sensors if table.device == device.id]
    dead = [(table.at, table.sensor) for table in broken if table.swapped_with is None]
    swapped = [(t.at, t.sensor, t.swapped_with) for t in broken if t.swapped_with is not None]
    return Surroundings(
        stream=stream,
        phases=tuple((drift.at, drift.phase) for drift in drifts),
        blend_s=max((drift.over for drift in drifts), default=0.0),
        broken_sensor=dead[0] if dead else None,
        swapped_sensors=swapped[0] if swapped else None,
    )


def is_target(device: DeviceSpec, target: str) -> bool:
    """Whether a target of the file means this device."""
    return target in ("*", device.id, f"site:{device.site}", f"class:{device.kind.name}")


# ---- models -------------------------------------------------------------------------------------


def _source(loaded: LoadedVirtual, directory: Path) -> Source:
    data = loaded.scenario.data
    if isinstance(data, SyntheticData):
        sensors = Sensors(data.sensors, data.labels, data.phases)
        return SyntheticSource(sensors, loaded.scenario.models)
    from edgeloop_simulators.virtual.scenario.recorded_source import (
        RecordedSource,  # loads onnxruntime
    )

    return RecordedSource(loaded, directory)


@dataclass(frozen=True)
class SyntheticSource:
    sensors: Sensors
    tables: Sequence[ModelTable]

    def streams(self) -> Sequence[str]:
        return ("synthetic",)

    def models(self) -> tuple[ModelSpec, ...]:
        return tuple(map(self._model, self.tables))

    def retraining(self) -> RetrainingSpec | None:
        return None

    def _model(self, table: ModelTable) -> ModelSpec:
        assert isinstance(table, SyntheticTable)  # `references` refuses the others
        name, _, version = table.name.partition("@")
        artifact = random.Random(table.name).randbytes(table.size)  # noqa: S311 - filling
        manifest = manifest_of(
            name,
            version,
            Artifact(digest=hashlib.sha256(artifact).hexdigest(), size_bytes=table.size, opset=17),
            self.sensors,
            Requirements(architectures=table.architectures),
        )
        behaviour = GeneratedModel(
            sensors=self.sensors,
            accuracy=table.accuracy,
            accuracy_in=table.accuracy_in,
            agrees=table.agrees,
            latency_us=table.latency * 1e6,
            memory_bytes=table.memory,
            load_s=table.load,
            goes=table.goes,
            goes_on=frozenset(table.goes_on),
            goes_after=table.goes_after,
        )
        return ModelSpec(manifest, artifact, behaviour)


def _bad(scenario: VirtualScenario) -> Mapping[str, frozenset[str | None]]:
    bad: dict[str, frozenset[str | None]] = {}
    for table in scenario.models:
        if isinstance(table, (OnnxTable, FunctionTable)):
            bad[table.name] = frozenset({None}) if table.bad else frozenset()
        elif isinstance(table, TrainedTable):
            bad[table.name] = frozenset({None}) if table.spoilt else frozenset()
        elif table.goes is not None:
            bad[table.name] = frozenset(table.goes_on) or frozenset({None})
    for fault in scenario.faults:
        if fault.model is not None:
            bad[fault.model] = frozenset({None})
    return bad


# ---- what is done, and what goes wrong ----------------------------------------------------------


def _script(scenario: VirtualScenario) -> list[Step]:
    """In order of time; a version is published just before it is first rolled out."""
    names = [table.name for table in scenario.models]
    script: list[Step] = []
    published: set[str] = set()
    for step in sorted(scenario.steps, key=lambda step: step.at):
        if isinstance(step, RollOutStep):
            number = names.index(step.model)
            if step.model not in published:
                published.add(step.model)
                script.append(Publish(step.at, number))
            terms = step.terms.model_dump(mode="json", exclude_unset=True)
            script.append(StartRollout(step.at, number, step.selector, step.waves, terms))
        elif isinstance(step, ChallengeStep):
            number = names.index(step.model)
            if step.model not in published:
                published.add(step.model)
                script.append(Publish(step.at, number))
            script.append(StartChallenger(step.at, number, step.selector, step.cpu_fraction))
        elif isinstance(step, EndChallengeStep):
            script.append(EndChallengers(step.at))
        elif isinstance(step, OperatorStep):
            script.append(EndRollouts(step.at, step.do))
        elif isinstance(step, LabelStep):
            script.append(SetLabels(step.at, step.device, step.labels))
    return script


def _faults_end_s(scenario: VirtualScenario) -> float:
    drawn_until_s = scenario.faults_end or FAULTY_SHARE * scenario.duration
    ends = [fault.at + fault.duration for fault in scenario.faults]
    return max([*ends, drawn_until_s if scenario.fault_rates else 0.0])


def _faults(
    scenario: VirtualScenario, devices: Sequence[DeviceSpec], seed: int
) -> tuple[Fault, ...]:
    drawn = draw(
        scenario.fault_rates,
        Streams(seed).stream("faults"),
        devices=[device.id for device in devices],
        sites=[site.name for site in scenario.sites],
        versions=len(scenario.models),
        until_s=_faults_end_s(scenario),
    )
    names = [table.name for table in scenario.models]
    given = [_fault(table, names) for table in scenario.faults]
    return tuple(sorted((*given, *drawn), key=lambda fault: fault.at_s))


def _fault(table: FaultTable, names: Sequence[str]) -> Fault:
    amount = table.amount if table.model is None else float(names.index(table.model) + 1)
    return Fault(
        kind=table.kind,
        at_s=table.at,
        duration_s=table.duration,
        target=table.target or _befalls(table.kind),
        amount=amount,
    )


def _befalls(kind: FaultKind) -> str:
    if kind in OF_THE_BROKER:
        return "broker"
    return "controller" if kind in OF_THE_CONTROLLER else "*"
