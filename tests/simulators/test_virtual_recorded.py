"""Recorded behaviours: draws, phases that blend, broken sensors, and bad input by name."""

import random
from pathlib import Path

import pytest

from edgeloop_simulators.datasets.generator import GeneratorData, generate
from edgeloop_simulators.errors import DatasetError
from edgeloop_simulators.references import RowRanges
from edgeloop_simulators.virtual.models.recorded import draw
from edgeloop_simulators.virtual.models.recorded_fleet import RecordedFleet, machine_fleet
from edgeloop_simulators.virtual.models.recordings import Scene
from edgeloop_simulators.virtual.spec.behaviour import Surroundings, added

SEASONS = Surroundings("machine-1", phases=((100.0, "after"),), blend_s=100.0)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> RecordedFleet:
    data = GeneratorData(machines_to_train=4, machines=3, windows=15)
    return machine_fleet(tmp_path_factory.mktemp("fleet"), data)


def accuracy(fleet: RecordedFleet, seen: Surroundings, at_s: float) -> float:
    answers = fleet.models[0].behaviour.answer(seen, at_s, 2000, None, random.Random(1))
    return answers.right / answers.count


def test_draws_are_even_and_a_known_answer() -> None:
    """The same rows on every machine: whole-number arithmetic on the generator's own bits."""
    assert draw(60, 5, random.Random(7)).tolist() == [19, 56, 9, 23, 39]
    drawn = draw(7, 7000, random.Random(0)).tolist()
    assert all(850 < drawn.count(row) < 1150 for row in range(7))
    assert draw(7, 0, random.Random(0)).tolist() == []


def test_one_luck_one_answer_and_the_same_rows_for_every_version(fleet: RecordedFleet) -> None:
    model = fleet.models[0].behaviour
    once = model.answer(SEASONS, 150.0, 50, model, random.Random(3))
    assert once == model.answer(SEASONS, 150.0, 50, model, random.Random(3))
    assert once != model.answer(SEASONS, 150.0, 50, model, random.Random(4))
    assert (once.count, once.disagreements) == (50, 0), "a version agrees with itself"


def test_a_phase_comes_in_evenly(fleet: RecordedFleet) -> None:
    before, after = accuracy(fleet, SEASONS, 99.0), accuracy(fleet, SEASONS, 200.0)
    half = accuracy(fleet, SEASONS, 150.0)
    assert before > after + 0.2
    assert abs(half - (before + after) / 2) < 0.05
    assert SEASONS.mixture(99.0) == ("before", "before", 1.0)
    assert SEASONS.mixture(125.0) == ("before", "after", 0.25)
    assert SEASONS.mixture(200.0) == ("after", "after", 1.0)
    from_the_beginning = Surroundings("machine-1", phases=((0.0, "after"),), blend_s=100.0)
    assert from_the_beginning.mixture(1.0) == ("after", "after", 1.0)


def test_steps_stay_steps(fleet: RecordedFleet) -> None:
    seen = Surroundings("machine-1", phases=((100.0, "after"),))
    assert accuracy(fleet, seen, 99.9) > accuracy(fleet, seen, 100.0) + 0.2


def test_a_broken_sensor_shows_from_its_time_on(fleet: RecordedFleet) -> None:
    seen = Surroundings("machine-1", broken_sensor=(50.0, "thermometer"))
    assert accuracy(fleet, seen, 49.0) > accuracy(fleet, seen, 51.0) + 0.2
    thermometer = fleet.models[0].manifest.features[3]
    assert thermometer.name == "temperature_mean"
    sampled = fleet.models[0].behaviour.sample(seen, 51.0, None, random.Random(0))
    assert sampled is not None
    assert sampled.features[3] == 0.0


def test_what_was_not_recorded_is_named(fleet: RecordedFleet) -> None:
    model = fleet.models[0].behaviour
    for seen, words in (
        (Surroundings("machine-9"), "no recorded stream 'machine-9'; the first ones: machine-1"),
        (Surroundings("machine-1", phases=((0.0, "noon"),)), "phase 'noon'; its phases: before"),
        (Surroundings("machine-1", broken_sensor=(0.0, "radar")), "no sensor 'radar'; it has: acc"),
    ):
        with pytest.raises(DatasetError, match=words):
            model.answer(seen, 1.0, 1, None, random.Random(0))


def test_answers_add_up(fleet: RecordedFleet) -> None:
    model, seen = fleet.models[0].behaviour, Surroundings("machine-2")
    one = model.answer(seen, 0.0, 30, None, random.Random(1))
    other = model.answer(seen, 0.0, 12, None, random.Random(2))
    both = added(one, other)
    assert both.count == 42
    assert sum(both.predictions) == 42
    assert all(sum(histogram) == 42 for histogram in (*both.features, both.confidence))


def test_generated_windows_are_the_seed_s_and_never_shared() -> None:
    data = GeneratorData(machines_to_train=3, machines=2, windows=2)
    once, again = generate(data), generate(data)
    assert [w.values.tobytes() for w in once.base] == [w.values.tobytes() for w in again.base]
    seen = RowRanges(w.reference for w in once.base)
    for portion in once.portions:
        for window in (*portion.before, *portion.after):
            assert not seen.overlaps(window.reference)
            seen.add(window.reference)
    assert generate(GeneratorData(seed=1)).base[0].values.tobytes() != once.base[0].values.tobytes()


def test_the_first_version_is_the_same_each_time(fleet: RecordedFleet, tmp_path: Path) -> None:
    """Down to the manifest's digest: its sketches are of so few values that they are exact."""
    data = GeneratorData(machines_to_train=4, machines=3, windows=15)
    again = machine_fleet(tmp_path, data)
    assert again.models[0].manifest.digest() == fleet.models[0].manifest.digest()
    assert Scene("machine-1", "before") == Scene("machine-1", "before", None, ())
