"""Full jitter: between floor and ceiling, growing reach, spread over its whole reach."""

from hypothesis import given
from hypothesis import strategies as st

from edgeloop_protocol.backoff import backoff_s

uniform = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10_000), uniform)
def test_within_bounds(attempt: int, random: float) -> None:
    assert 0.5 <= backoff_s(attempt, random, 0.5, 60) <= 60


@given(st.integers(1, 100))
def test_the_reach_grows_to_the_ceiling_and_jitter_covers_it(attempt: int) -> None:
    assert backoff_s(attempt, 0.0) == 0.5
    assert backoff_s(attempt + 1, 0.999) >= backoff_s(attempt, 0.999)
    assert backoff_s(7, 0.999999) > 59
