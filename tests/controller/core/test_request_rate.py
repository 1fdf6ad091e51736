"""Token buckets by address."""

from hypothesis import given
from hypothesis import strategies as st

from edgeloop_controller.core.request_rate import RequestRate


def test_a_burst_and_then_the_rate() -> None:
    rate = RequestRate(requests_per_s=2.0, burst=3)
    assert [rate.wait_s("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait_s("b", 0.0) == 0
    assert rate.wait_s("a", 0.5) == 0
    assert rate.wait_s("a", 0.5) > 0


def test_addresses_are_bounded() -> None:
    rate = RequestRate(requests_per_s=1.0, burst=1, addresses_max=2)
    for address in ("a", "b", "c"):
        rate.wait_s(address, 0.0)
    assert rate.wait_s("c", 0.0) > 0, "the newest are kept"
    assert rate.wait_s("a", 0.0) == 0, "the quietest was forgotten"


@given(
    gaps=st.lists(st.floats(min_value=0, max_value=3), min_size=1, max_size=60),
    per_s=st.floats(min_value=0.5, max_value=20),
    burst=st.integers(min_value=1, max_value=10),
)
def test_never_more_than_burst_and_rate(gaps: list[float], per_s: float, burst: int) -> None:
    rate, now, passed = RequestRate(per_s, burst), 0.0, 0
    for gap in gaps:
        now += gap
        passed += rate.wait_s("a", now) == 0
        assert passed <= burst + now * per_s + 1e-6
