"""The gates against the control group: what halts, what is said, and what is waited for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeloop_controller.core import gates
from edgeloop_controller.core.device_change import AT, COLUMNS, changes
from edgeloop_controller.core.gate_control import members_watched
from edgeloop_controller.core.rollout import (
    Evidence,
    Look,
    Member,
    MemberPhase,
    RolloutSpec,
    RolloutTerms,
    Verdict,
)
from edgeloop_controller.core.strata import Stratum
from edgeloop_controller.core.waves import look_number, look_taken_at, parse_waves
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, TensorSpec
from edgeloop_protocol.messages import VersionRef

OLD = VersionRef(name="gait", version="1.4", manifest_digest="1" * 64)
MANIFEST = Manifest(
    name="gait",
    version="2",
    artifact=Artifact(digest="a" * 64, size_bytes=10),
    inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
    outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
    scores_output="p",
    features=(Feature(name="f", sensor="f"),),
    labels=("a", "b"),
)
MEMBERS, CONTROLS = 40, 400


def spec(**terms: float) -> RolloutSpec:
    waves = parse_waves("1,5%,100%")
    return RolloutSpec(1, MANIFEST.ref(), MANIFEST, "main", "all", waves, RolloutTerms(**terms))


def sums(rng: np.random.Generator, devices: int, **columns: float) -> NDArray[np.float64]:
    """200 examples a device; means as given, with noise."""
    found = np.zeros((devices, len(COLUMNS) + 2))
    examples = 200.0
    values = {"latency": 0.0, "memory": 0.0, "confidence": 0.8, "failed": 0.0, "crashes": 0.0}
    values |= columns
    first = values.get("first", 0.6)
    found[:, AT["examples"]] = examples
    for name in ("failed", "crashes"):
        found[:, AT[name]] = rng.poisson(values[name], devices)
    for name, total in (("latency", "log_latency"), ("memory", "log_memory")):
        found[:, AT[f"{name}_weight"]] = examples
        found[:, AT[total]] = examples * (values[name] + rng.normal(0, 0.1, devices))
    found[:, AT["confidence_weight"]] = examples
    found[:, AT["confidence"]] = examples * (values["confidence"] + rng.normal(0, 0.02, devices))
    found[:, -2] = rng.binomial(200, first, devices)
    found[:, -1] = 200 - found[:, -2]
    return found


def look(where: str = "", wave: int = 2, number: int = 3, **columns: float) -> Look:
    """Members change by `columns`; `where`: only those of that site or architecture."""
    rng, count = np.random.default_rng(0), MEMBERS + CONTROLS
    strata = [Stratum(("x86_64", "aarch64")[n % 2], f"plant-{n % 4}") for n in range(count)]
    is_member = np.arange(count) < MEMBERS
    bad = is_member & np.array([not where or where in stratum for stratum in strata])
    after = np.where(bad[:, None], sums(rng, count, **columns), sums(rng, count))
    found = changes(sums(rng, count), after)
    return Look(wave, number, strata, is_member, found, (OLD,))


def judged(seen: Look | None, **terms: float) -> dict[str, Verdict]:
    return {v.gate: v for v in gates.judge(spec(**terms), {}, Evidence(look=seen))}


@pytest.mark.parametrize(
    ("gate", "columns"),
    [
        ("crashes", {"crashes": 5.0}),
        ("errors", {"failed": 10.0}),
        ("latency", {"latency": 1.2}),
        ("memory", {"memory": 1.2}),
        ("confidence", {"confidence": 0.5}),
        ("predictions", {"first": 0.05}),
    ],
)
@pytest.mark.parametrize("where", ["", "plant-1", "aarch64"])
def test_each_gate_finds_its_fault_in_all_and_in_one_stratum(
    gate: str, columns: dict[str, float], where: str
) -> None:
    verdicts = judged(look(where, **columns))
    assert [name for name, verdict in verdicts.items() if verdict.halted] == [gate]
    if where == "plant-1" and gate != "crashes":  # too few for the whole to halt by
        assert verdicts[gate].evidence["group"] == "site plant-1"
        assert "on 10 devices of site plant-1 with gait@2" in verdicts[gate].sentence


def test_the_same_change_of_all_devices_halts_nothing() -> None:
    seen = look()
    shared = {name: values + 1.0 for name, values in seen.changes.by_measure.items()}
    moved = Look(2, 3, seen.strata, seen.is_member, type(seen.changes)(
        shared, seen.changes.judged, seen.changes.answered
    ), (OLD,))  # fmt: skip
    assert not any(verdict.halted for verdict in judged(moved).values())


def test_the_sentence_has_the_effect_its_certainty_and_both_groups() -> None:
    verdict = judged(look(confidence=0.65))["confidence"]
    assert verdict.halted
    assert verdict.sentence.startswith("confidence fell by 0.1")
    assert verdict.sentence.endswith(
        "(99.9995%) on 40 devices with gait@2, against 400 still on gait@1.4"
    )
    assert verdict.evidence["low"] <= 0.15 <= verdict.evidence["high"]
    assert verdict.evidence["low"] > 0.10


def test_what_stays_within_the_tolerance_passes() -> None:
    assert not judged(look(confidence=0.75))["confidence"].halted
    assert judged(look(confidence=0.75), max_confidence_drop=0.01)["confidence"].halted


def test_without_a_look_or_a_control_the_verdicts_say_so() -> None:
    assert judged(None)["latency"].sentence == "no look at the control group yet"
    assert (
        judged(look(), control_group=False)["latency"].sentence == "no control group is asked for"
    )
    seen = look()
    everyone = Look(3, 1, seen.strata, np.ones_like(seen.is_member), seen.changes, (OLD,))
    assert "is left to compare with" in judged(everyone)["latency"].sentence
    assert members_watched(everyone, 10) == (0, 0)
    assert members_watched(seen, 200) == (MEMBERS, MEMBERS)
    assert members_watched(seen, 201) == (0, MEMBERS)


def test_too_few_examples_are_not_known() -> None:
    before = sums(np.random.default_rng(0), 3)
    after = before.copy()
    after[0, AT["examples"]] = 3
    found = changes(before, after)
    assert found.judged.tolist() == [False, True, True]
    assert np.isnan(found.by_measure["errors"][0])


def test_looks_double_and_end() -> None:
    taken = [look_taken_at(100.0, 30.0, number) for number in (1, 2, 3)]
    assert taken == [130.0, 160.0, 220.0]
    assert [look_number(100.0, 30.0, at) for at in (129.9, 130.0, 219.0, 220.0)] == [0, 1, 2, 3]
    assert look_number(100.0, 0.0, 1e300) == 24


def test_a_fault_of_one_small_architecture_is_found_among_many_healthy() -> None:
    """5 of 130 is below the rule's share; all five are of one architecture."""

    class View:
        def __init__(self, architecture: str) -> None:
            self.labels: dict[str, str] = {}
            self.inventory = type("Inventory", (), {"architecture": architecture})()

    members = {
        f"d{n}": Member(
            f"d{n}", 0, MemberPhase.FAILED if n < 5 else MemberPhase.COMMITTED, offered_at=1.0
        )
        for n in range(130)
    }
    views = {name: View("armv7l" if int(name[1:]) < 5 else "x86_64") for name in members}
    spread = {name: View("armv7l" if int(name[1:]) % 26 == 0 else "x86_64") for name in members}
    assert gates.judge(spec(), members, Evidence(), views)[0].halted  # type: ignore[arg-type]
    assert not gates.judge(spec(), members, Evidence(), spread)[0].halted  # type: ignore[arg-type]
