"""The gates: their bounds, their words, and that order of arrival changes nothing."""

import math
import random

import pytest

from edgeloop_controller.core.gates import halting, judge
from edgeloop_controller.core.rollout import (
    ComparedWindow,
    Evidence,
    LabelledPair,
    Member,
    MemberPhase,
    ProbationTerms,
    RolloutSpec,
    RolloutTerms,
)
from edgeloop_controller.core.waves import parse_waves
from edgeloop_protocol.manifest import (
    Artifact,
    Evaluation,
    Feature,
    Manifest,
    TensorSpec,
)
from edgeloop_protocol.messages import VersionRef

OLD = VersionRef(name="gait", version="1", manifest_digest="1" * 64)
OTHER = VersionRef(name="gait", version="0", manifest_digest="0" * 64)


def manifest(evaluation: Evaluation | None = None) -> Manifest:
    return Manifest(
        name="gait",
        version="2",
        artifact=Artifact(digest="a" * 64, size_bytes=10),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        scores_output="p",
        features=(Feature(name="f", sensor="f"),),
        labels=("a", "b"),
        evaluation=evaluation,
    )


def spec(evaluation: Evaluation | None = None, **terms: float) -> RolloutSpec:
    model = manifest(evaluation)
    return RolloutSpec(
        1, model.ref(), model, "main", "all", parse_waves("1,100%"), RolloutTerms(**terms)
    )


def members(*phases: MemberPhase, cause: str = "") -> dict[str, Member]:
    return {f"d{n}": Member(f"d{n}", 0, phase, cause=cause) for n, phase in enumerate(phases)}


def windows(count: int, disagreements: int, shadow: VersionRef = OLD) -> Evidence:
    return Evidence(windows=(ComparedWindow("d0", shadow, count, disagreements),))


def test_one_failed_canary_halts_with_its_cause() -> None:
    verdicts = judge(spec(), members(MemberPhase.FAILED, cause="output has NaN"), Evidence())
    found = halting(verdicts)
    assert found is not None
    assert found.gate == "failures"
    assert found.sentence == "1 of 1 device rolled gait@2 back (output has NaN); none may"


@pytest.mark.parametrize(("failed", "halts"), [(1, False), (2, True)])
def test_failures_are_a_share_of_those_that_were_offered(failed: int, halts: bool) -> None:
    phases = [MemberPhase.FAILED] * failed + [MemberPhase.COMMITTED] * (20 - failed)
    assert judge(spec(), members(*phases), Evidence())[0].halted is halts


def test_withdrawn_and_ineligible_members_do_not_count() -> None:
    verdict = judge(spec(), members(MemberPhase.WITHDRAWN, MemberPhase.INELIGIBLE), Evidence())[0]
    assert (verdict.looked, verdict.halted) == (0, False)


def test_a_permuted_model_is_halted_and_says_how_to_mend() -> None:
    verdict = judge(spec(), members(MemberPhase.OFFERED), windows(60, 57))[1]
    assert verdict.halted
    assert verdict.looked == 60
    assert "of 60 examples on 1 device; the bound is 50%" in verdict.sentence
    assert "raise max_disagreement" in verdict.sentence
    assert 0.5 < verdict.evidence["low"] < 0.95 < verdict.evidence["high"] <= 1


def test_a_good_model_passes() -> None:
    assert halting(judge(spec(), members(MemberPhase.COMMITTED), windows(500, 100))) is None


def evaluated(against: VersionRef, disagreement: float) -> Evaluation:
    return Evaluation(
        examples=100, accuracy=0.9, against=against, against_accuracy=0.5, disagreement=disagreement
    )


def test_an_evaluation_against_the_old_version_sets_the_bound() -> None:
    evidence = windows(200, 140)
    assert judge(spec(), {}, evidence)[1].halted
    shown_better = judge(spec(evaluated(OLD, 0.45)), {}, evidence)[1]
    assert not shown_better.halted
    assert shown_better.evidence["bound"] == pytest.approx(0.85)
    assert judge(spec(evaluated(OTHER, 0.45)), {}, evidence)[1].halted


def test_no_margin_allows_to_disagree_nearly_always() -> None:
    assert judge(spec(evaluated(OLD, 0.8)), {}, windows(300, 297))[1].halted


def test_each_old_version_is_judged_for_itself() -> None:
    evidence = Evidence(windows=windows(60, 57).windows + windows(600, 30, OTHER).windows)
    verdict = judge(spec(), {}, evidence)[1]
    assert verdict.halted
    assert verdict.evidence["shadow_digest"] == OLD.manifest_digest
    assert verdict.looked == 660


def test_the_parts_of_the_false_halt_rate_are_fixed_and_sum_to_no_more_than_it() -> None:
    versions = [
        VersionRef(name="gait", version=str(n), manifest_digest=f"{n:064x}")
        for n in range(9, 0, -1)
    ]
    spent = []
    for known in range(1, len(versions) + 1):
        seen = [ComparedWindow("d0", version, 20, 1) for version in versions[:known]]
        newest = ComparedWindow("d0", versions[known - 1], 400, 399)
        for window in (newest, ComparedWindow("d0", versions[0], 400, 399)):
            verdict = judge(spec(), {}, Evidence(windows=(*seen, window)))[1]
            assert verdict.halted
            alpha = math.exp(-verdict.evidence["threshold"])
            if window is newest:
                spent.append(alpha)
            else:  # the first one's part is what it was, whoever came since
                assert alpha == pytest.approx(spent[0])
    assert sum(spent) <= 0.01 / 2
    assert spent == sorted(spent, reverse=True)


def pairs(only_old: int, only_new: int, both: int) -> tuple[LabelledPair, ...]:
    return (
        (LabelledPair("d0", target_correct=False, shadow_correct=True),) * only_old
        + (LabelledPair("d0", target_correct=True, shadow_correct=False),) * only_new
        + (LabelledPair("d0", target_correct=True, shadow_correct=True),) * both
    )


@pytest.mark.parametrize(
    ("only_old", "only_new", "both", "halts"),
    [(30, 0, 2, True), (0, 30, 2, False), (12, 10, 80, False), (40, 5, 60, True)],
)
def test_labels_judge_accuracy(only_old: int, only_new: int, both: int, halts: bool) -> None:
    verdict = judge(spec(), {}, Evidence(pairs=pairs(only_old, only_new, both)))[2]
    assert verdict.halted is halts
    assert f"{only_new + both} of {only_old + only_new + both} labelled" in verdict.sentence


def test_the_order_of_arrival_changes_nothing() -> None:
    many = [ComparedWindow(f"d{n % 3}", OLD, n, n // 2) for n in range(1, 30)]
    shuffled = many.copy()
    random.Random(1).shuffle(shuffled)
    assert judge(spec(), {}, Evidence(windows=many)) == judge(
        spec(), {}, Evidence(windows=shuffled)
    )


def test_probation_lasts_until_enough_is_compared() -> None:
    assert RolloutTerms(min_compared=80).probation.min_examples == 80
    assert RolloutTerms(probation=ProbationTerms(compare=False)).probation.min_examples == 20
