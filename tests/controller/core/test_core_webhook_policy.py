"""What the answer to a webhook's delivery means."""

import pytest

from edgeloop_controller.core.webhook_policy import (
    REFUSALS_MAX,
    WAIT_S_MAX,
    Bounds,
    Verdict,
    verdict,
    wait_s,
)

BOUNDS = Bounds(attempts_max=100, give_up_after_s=3600.0)


@pytest.mark.parametrize(
    ("status", "attempts", "age_s", "expected"),
    [
        (200, 1, 0.0, Verdict.DELIVERED),
        (204, 100, 9e9, Verdict.DELIVERED),
        (302, 1, 0.0, Verdict.AGAIN),
        (404, 99, 0.0, Verdict.AGAIN),
        (500, 1, 3599.0, Verdict.AGAIN),
        (None, 1, 0.0, Verdict.AGAIN),
        (None, 100, 0.0, Verdict.GIVEN_UP),
        (500, 1, 3600.0, Verdict.GIVEN_UP),
        (422, REFUSALS_MAX - 1, 0.0, Verdict.AGAIN),
        (400, REFUSALS_MAX, 0.0, Verdict.GIVEN_UP),
    ],
)
def test_verdicts(status: int | None, attempts: int, age_s: float, expected: Verdict) -> None:
    assert verdict(status, attempts, age_s, BOUNDS) is expected


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("", 2.0),
        ("7", 7.0),
        ("1", 2.0),
        ("9999", WAIT_S_MAX),
        ("Wed, 21 Oct", 2.0),
        ("9" * 400, 2.0),
    ],
)
def test_what_a_receiver_asks_for_is_waited_for_within_a_bound(asked: str, waits: float) -> None:
    assert wait_s(2.0, asked) == waits
