"""What leaves the device for labelling: how much, which, and what of it."""

import random

import numpy as np
import pytest

from edgeloop_agent.config import CaptureConfig, TelemetryConfig
from edgeloop_agent.core.budget import DAY_S, ByteBudget
from edgeloop_agent.runner.capture import Capture
from edgeloop_agent.runner.inference import Answer
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.limits import CAPTURE_EXAMPLES_MAX
from edgeloop_protocol.messages import Sample
from edgeloop_simulators.twins.outbox import MemoryOutbox

LABELS = 2


@pytest.fixture
def capturing(make_package):
    def make(config, seed=1, **telemetry):
        sent, package = [], make_package()
        manifest = package.manifest
        capture = Capture(
            "main",
            package.offer.ref,
            manifest,
            None if config is None else CaptureConfig(**config),
            TelemetryConfig(**telemetry),
            random.Random(seed),
            sent.append,
        )
        return capture, sent

    return make


def see(capture, confidences, features=None, disagrees=None, start=0):
    count = len(confidences)
    rows = np.zeros((count, 3), np.float32) if features is None else np.float32(features)
    capture.many(
        [f"r{start + n}" for n in range(count)],
        1.0,
        rows,
        np.array(confidences, np.float32),
        None if disagrees is None else np.array(disagrees),
        lambda n: Answer(rows[n], 1, float(confidences[n]), 1.0),
        None,
    )


def test_the_reservoir_is_bounded_fair_and_sent_at_the_windows_end(capturing):
    counts = dict.fromkeys((f"r{n}" for n in range(100)), 0)
    for seed in range(400):
        capture, sent = capturing({"reservoir_per_window": 5}, seed)
        for start in range(0, 100, 10):
            see(capture, [0.9] * 10, start=start)
        assert sent == []
        capture.window_ends()
        assert len({sample.reference for sample in sent}) == 5
        for sample in sent:
            counts[sample.reference] += 1
    # 400 * 5 / 100 = 20 each, give or take 4.4: early examples as often as late ones
    halves = sum(list(counts.values())[:50]), sum(list(counts.values())[50:])
    assert abs(halves[0] - halves[1]) < 6 * (400 * 5 * 0.25) ** 0.5 * 2
    assert min(counts.values()) > 2
    capture.window_ends()
    assert len(sent) == 5, "an empty window sends nothing"


def test_rules_send_at_once_and_no_more_than_their_number(capturing):
    capture, sent = capturing(
        {"reservoir_per_window": 0, "by_rule_per_window": 3, "confidence_below": 0.6}
    )
    see(capture, [0.9, 0.5, 0.7, 0.59, 0.1, 0.2, 0.3])
    assert [sample.reference for sample in sent] == ["r1", "r3", "r4"]
    capture.window_ends()
    see(capture, [0.5])
    assert len(sent) == 4


def test_disagreement_is_a_rule(capturing):
    capture, sent = capturing({"reservoir_per_window": 0, "disagreement": True})
    see(capture, [0.9] * 3, disagrees=[False, True, False])
    see(capture, [0.9] * 3)
    assert [sample.reference for sample in sent] == ["r1"]


def test_outside_of_the_training_data_is_a_rule(capturing, make_package, monkeypatch):
    from edgeloop_agent.runner import capture as module

    monkeypatch.setattr(module, "_ends", lambda binned: (-1.0, 1.0))
    config = {"reservoir_per_window": 0, "outside_baseline": True}
    rows = [[0, 0, 0], [0, 1.05, 0], [-2, 0, 0], [1, 1, 1]]
    capture, sent = capturing(config)
    see(capture, [0.9] * 4, rows)
    assert [sample.reference for sample in sent] == ["r1", "r2"]
    capture, sent = capturing(config | {"outside_margin": 0.1})
    see(capture, [0.9] * 4, rows)
    assert [sample.reference for sample in sent] == ["r2"]


def test_a_range_is_that_of_the_baselines_sketch_and_none_without_one():
    from edgeloop_agent.runner.capture import _ends
    from edgeloop_simulators.bench.model import bench_model

    model = bench_model()
    low, high = _ends(model.manifest.baseline.features[0])
    column = model.examples[:, 0]
    assert (low, high) == (pytest.approx(column.min()), pytest.approx(column.max()))
    bare = model.manifest.baseline.features[0].model_copy(update={"sketch": ""})
    assert _ends(bare) == (-np.inf, np.inf)


@pytest.mark.parametrize("config", [None, {"reservoir_per_window": 5}, {"confidence_below": 0.99}])
def test_private_values_are_blanked_however_an_example_is_captured(capturing, make_package, config):
    names = [feature.name for feature in make_package().manifest.features]
    capture, sent = capturing(config, sample_fraction=1.0, private_features=(names[1],))
    assert capture.withholds
    see(capture, [0.5] * 4, [[1.5, 2.5, 3.5]] * 4)
    capture.window_ends()
    assert len(sent) == 4
    for sample in sent:
        assert sample.features == (1.5, None, 3.5)
        assert "2.5" not in sample.model_dump_json()
        assert Sample.model_validate_json(sample.model_dump_json()) == sample


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return self.now


def test_samples_have_a_budget_of_their_own_a_day(capturing):
    capture, sent = capturing(None, sample_fraction=1.0, samples_max_per_window=10**6)
    see(capture, [0.9])
    size = len(sent[0].model_dump_json())
    clock = Clock()
    outbox = MemoryOutbox("e", 10**9)
    telemetry = Telemetry(
        outbox, ByteBudget(10**9, None, 0.0), clock, ByteBudget(50 * size, 0.0, 0.0)
    )
    for _ in range(2 * 86_400 // 60):
        clock.now += 60.0
        telemetry.record(sent[0])
    stored = outbox.totals().held
    assert 99 <= stored <= 100, "two days' worth"
    assert telemetry.samples_withheld == 2 * DAY_S / 60 - stored
    telemetry.event("x")
    assert outbox.totals().held == stored + 1, "only samples are bound by it"


# ---- asked for from afar ------------------------------------------------------------------------


@pytest.mark.parametrize("config", [None, {"reservoir_per_window": 0, "confidence_below": 0.5}])
def test_the_next_examples_are_sent_once_each_and_no_more(capturing, config):
    capture, sent = capturing(config, sample_fraction=1.0, samples_max_per_window=2)
    see(capture, [0.9])
    sent.clear()
    capture.window_ends()
    capture.ask(3)
    see(capture, [0.1, 0.9])
    assert [one.reference for one in sent] == ["r0", "r1"]
    see(capture, [0.1, 0.9, 0.1], start=2)
    rest = ["r2", "r3", "r4"] if config is None else ["r2", "r4"]
    assert [one.reference for one in sent[2:]] == rest, "then the rules are alone again"
    assert len({one.reference for one in sent}) == len(sent)


def test_what_is_asked_for_is_bounded_and_does_not_add_up(capturing):
    capture, sent = capturing(None, sample_fraction=0.0)
    capture.ask(10**6)
    capture.ask(CAPTURE_EXAMPLES_MAX)
    see(capture, [0.9] * 500)
    assert len(sent) == CAPTURE_EXAMPLES_MAX


def test_what_is_asked_for_holds_no_private_value(capturing):
    capture, sent = capturing(None, sample_fraction=0.0, private_features=("b",))
    capture.ask(1)
    see(capture, [0.9], [[1, 2, 3]])
    assert sent[0].features == (1.0, None, 3.0)
