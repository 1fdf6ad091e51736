"""Two slots of a device behind a slow link: their versions switch together (ADR 0020)."""

import pytest

from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.seeds.explore_world import TERMS, manifest_of
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceClass,
    DeviceSpec,
    Link,
    ModelSpec,
    Publish,
    StartRollout,
    WorldSpec,
)
from edgeloop_simulators.virtual.world.world import World

SLOW_BYTES_PER_S = 2_000.0
SMALL_BYTES, LARGE_BYTES = 4_000, 300_000
UPDATE_AT_S = 300.0
MODELS = (("pump", "main"), ("valve", "aux"))


def two_slots(link=SLOW_BYTES_PER_S, cap=0.0):
    """Both models go to both devices at once: the first versions, and the second ones later."""
    models, script = [], []
    for version, at_s in (("1", 10.0), ("2", UPDATE_AT_S)):
        for (name, slot), size in zip(MODELS, (SMALL_BYTES, LARGE_BYTES), strict=True):
            artifact = (name + version).encode() * (size // 6)
            manifest = manifest_of(name, version, artifact)
            number = len(models)
            models.append(ModelSpec(manifest, artifact, SyntheticModel()))
            script += [
                Publish(at_s, number),
                StartRollout(at_s + 1, number, waves=("100%",), terms=TERMS, slot=slot),
            ]
    return WorldSpec(
        devices=tuple(
            DeviceSpec(name, kind=DeviceClass(link=Link(bytes_per_s=link))) for name in "de"
        ),
        models=tuple(models),
        script=tuple(script),
        faults_end_s=600.0,
        duration_s=1500.0,
        settles_s=30.0,
        more_slots=("aux",),
        agent=AgentTiming(
            progress_s=10.0, window_s=60.0, heartbeat_timeout_s=40.0, download_bytes_per_s_max=cap
        ),
        controller=ControllerTiming(ingest_s=1.0, tick_s=5.0),
    )


def switches(spec, *faults):
    """When each second version was first tried, by device and model."""
    seen = []
    outcome = World(spec, faults, 1, (seen.append,)).run()
    assert outcome.violations == ()
    tried = {}
    for one in seen:
        if one.what == "runner.started" and one.data["version"].endswith("@2"):
            tried.setdefault((one.part, one.data["version"]), one.at_s)
    return tried, seen


@pytest.mark.parametrize(
    ("link", "cap"), [(SLOW_BYTES_PER_S, 0.0), (1e9, SLOW_BYTES_PER_S)], ids=["slow", "capped"]
)
def test_versions_that_came_together_switch_together(link, cap):
    tried, _ = switches(two_slots(link, cap))
    assert len(tried) == 4
    for device in "de":
        small, large = tried[device, "pump@2"], tried[device, "valve@2"]
        assert small == pytest.approx(large, abs=1.0)
        assert small - UPDATE_AT_S >= LARGE_BYTES / SLOW_BYTES_PER_S, "not before both were there"


def test_a_power_cut_while_one_waits_for_the_other_changes_nothing_of_that():
    cut = Fault(kind=FaultKind.POWER_CUT, at_s=UPDATE_AT_S + 75, duration_s=60, target="d")
    tried, seen = switches(two_slots(), cut)
    died = [one.at_s for one in seen if one.what == "device.died" and one.part == "d"]
    assert died
    assert tried["d", "pump@2"] > died[0]
    assert tried["d", "pump@2"] == pytest.approx(tried["d", "valve@2"], abs=1.0)
