"""The annotator: a share of the samples, late, the same ones each time."""

from collections.abc import Sequence
from typing import Any

import pytest

from edgeloop_simulators.annotator import Annotator, chosen
from edgeloop_simulators.scenario import Annotator as Terms


class Queue:
    """Samples as the API pages them."""

    def __init__(self, count: int) -> None:
        self.samples = [
            {"id": i, "device_id": "d0", "reference": f"r0:{i}-{i + 1}"}
            for i in range(1, count + 1)
        ]
        self.given: list[dict[str, Any]] = []

    def unlabelled_samples(self, after: int, limit: int) -> Sequence[dict[str, Any]]:
        return [s for s in self.samples if s["id"] > after][:limit]

    def give_labels(self, labels: Sequence[dict[str, Any]], annotator: str) -> None:
        self.given.extend(labels)


def test_a_share_is_labelled_and_no_sooner_than_its_delay() -> None:
    queue = Queue(1200)
    annotator = Annotator(queue, lambda _, reference: f"is {reference}", Terms(fraction=0.5), 0)
    annotator.turn(100.0)
    annotator.turn(104.9)
    assert queue.given == []
    annotator.turn(105.0)
    assert 0.45 < len(queue.given) / 1200 < 0.55
    assert annotator.labelled == len(queue.given) == len({g["sample_id"] for g in queue.given})
    first = queue.given[0]
    assert first["label"] == f"is r0:{first['sample_id']}-{first['sample_id'] + 1}"


def test_a_sample_is_seen_once() -> None:
    queue = Queue(10)
    annotator = Annotator(queue, lambda *_: "x", Terms(fraction=1.0, delay_s=0), 0)
    annotator.turn(1.0)
    annotator.turn(2.0)
    assert len(queue.given) == 10


def test_what_has_no_truth_is_not_labelled() -> None:
    queue = Queue(10)
    annotator = Annotator(queue, lambda *_: None, Terms(fraction=1.0, delay_s=0), 0)
    annotator.turn(1.0)
    assert queue.given == []


def test_the_choice_is_the_reference_s_and_the_seed_s() -> None:
    references = [f"r0:{i}-{i + 1}" for i in range(500)]
    once = [chosen(r, 0.3, 1) for r in references]
    assert once == [chosen(r, 0.3, 1) for r in references]
    assert once != [chosen(r, 0.3, 2) for r in references]
    assert not any(chosen(r, 0.0, 1) for r in references)
    assert all(chosen(r, 1.0, 1) for r in references)


def test_labels_that_the_controller_did_not_take_are_given_again() -> None:
    queue = Queue(10)
    annotator = Annotator(queue, lambda *_: "x", Terms(fraction=1.0, delay_s=0), 0)
    take, queue.give_labels = queue.give_labels, away
    with pytest.raises(ConnectionError):
        annotator.turn(1.0)
    assert annotator.labelled == 0
    queue.give_labels = take
    annotator.turn(2.0)
    annotator.turn(3.0)
    assert len(queue.given) == annotator.labelled == 10


def away(labels: Sequence[dict[str, Any]], annotator: str) -> None:
    raise ConnectionError
