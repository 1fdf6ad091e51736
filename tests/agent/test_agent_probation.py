"""Probation's verdict over a runner's progress."""

import pytest

from edgeloop_agent.core.events import Progress
from edgeloop_agent.core.probation import LATENCY_FLOOR_US, Failed, Proven, judge
from edgeloop_protocol.messages import Probation

TERMS = Probation(
    min_s=10, min_examples=20, max_s=60, max_error_rate=0.1, max_latency_ratio=2, compare=True
)
SLOW = 2 * LATENCY_FLOOR_US


@pytest.mark.parametrize(
    ("progress", "elapsed_s", "old_us", "expected"),
    [
        (Progress(), 0, None, None),
        (Progress(examples=20), 9.9, None, None),
        (Progress(examples=19), 10, None, None),
        (Progress(examples=20), 10, None, Proven()),
        (Progress(examples=20, errors=2), 10, None, Proven()),
        (Progress(examples=17, errors=3), 1, None, "errors"),
        (Progress(errors=20), 1, None, "errors"),
        (Progress(errors=5), 1, None, None),
        (Progress(examples=1, nonfinite=1), 0.1, None, "nan or inf"),
        (Progress(nonfinite=1, examples=500), 100, None, "nan or inf"),
        (Progress(examples=19), 60, None, "not proven in time"),
        (Progress(source_errors=100), 60, None, "not proven in time"),
        (Progress(examples=20, same_answers=20, shadow_varied=True), 5, None, "constant output"),
        (Progress(examples=20, same_answers=20, shadow_varied=False), 10, None, Proven()),
        (Progress(examples=30, same_answers=19, shadow_varied=True), 10, None, Proven()),
        (Progress(examples=20, latency_p95_us=SLOW), 10, SLOW / 2, Proven()),
        (Progress(examples=20, latency_p95_us=SLOW), 10, SLOW / 2.1, None),
        (Progress(examples=99, latency_p95_us=SLOW), 29.9, SLOW / 2.1, None),
        (Progress(examples=100, latency_p95_us=SLOW), 10, SLOW / 2.1, "slower"),
        (Progress(examples=20, latency_p95_us=SLOW), 30, SLOW / 2.1, "slower"),
        (Progress(examples=20, latency_p95_us=LATENCY_FLOOR_US), 10, 1.0, Proven()),
        (Progress(examples=20, latency_p95_us=SLOW), 10, None, Proven()),
    ],
)
def test_verdicts(progress, elapsed_s, old_us, expected):
    verdict = judge(TERMS, progress, elapsed_s, old_us)
    if isinstance(expected, str):
        assert isinstance(verdict, Failed)
        assert verdict.cause == expected
        assert verdict.detail
    else:
        assert verdict == expected


@pytest.mark.parametrize(
    ("used", "cap", "fails"), [(101, 100, True), (100, 100, False), (9, 0, False)]
)
def test_the_memory_cap_is_judged_at_once(used, cap, fails):
    verdict = judge(TERMS, Progress(memory_bytes=used), 0.1, None, cap)
    assert isinstance(verdict, Failed) == fails
    if fails:
        assert verdict.cause == "memory"
        assert "101" in verdict.detail
        assert "100" in verdict.detail
