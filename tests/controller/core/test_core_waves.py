"""Waves: parsing, bounds, and who goes first."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_controller.core.rollout import DeviceView, Wave
from edgeloop_controller.core.waves import bound, entry_order, format_waves, lot_of, parse_waves
from edgeloop_controller.errors import WaveError
from edgeloop_protocol.messages import Inventory

INVENTORY = Inventory(
    agent_version="1", architecture="x86_64", python="3.11", memory_bytes=1, disk_free_bytes=1,
    cpu_count=1,
)  # fmt: skip


def device(name: str, online: bool = True) -> DeviceView:
    return DeviceView(
        name, {}, online, INVENTORY, {}, has_seen_offer=True, assigned_digest=None, busy_with=None
    )


def test_parses_and_writes_back() -> None:
    waves = parse_waves("1, 25%,100%")
    assert waves == (Wave(count=1), Wave(percent=25.0), Wave(percent=100.0))
    assert format_waves(waves) == ["1", "25%", "100%"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "wave 1: '' is neither"),
        ("1,x", "wave 2: 'x' is neither"),
        ("0", "wave 1: a wave has at least 1"),
        ("0%", "wave 1: 0% is not above"),
        ("101%", "wave 1: 101% is not"),
        ("5,3", "wave 2 is smaller"),
        ("50%,25%", "wave 2 is smaller"),
        ("50%,5", "wave 2: a count cannot follow"),
        ("-1", "wave 1: '-1' is neither"),
        (",".join(["1"] * 33), "33 waves"),
    ],
)
def test_errors_name_the_wave(text: str, says: str) -> None:
    with pytest.raises(WaveError, match=says) as caught:
        parse_waves(text)
    assert "1,25%,100%" in caught.value.hint


@pytest.mark.parametrize(
    ("wave", "matching", "devices"),
    [
        (Wave(count=1), 10, 1),
        (Wave(percent=25), 10, 3),
        (Wave(percent=1), 10, 1),
        (Wave(percent=7), 100, 7),
        (Wave(percent=100), 10, 10),
        (Wave(percent=100), 0, 1),
    ],
)
def test_bounds_round_up_and_are_never_zero(wave: Wave, matching: int, devices: int) -> None:
    assert bound(wave, matching) == devices


@given(st.floats(0.01, 100), st.integers(0, 10_000))
def test_a_percentage_never_takes_more_than_one_device_too_many(
    percent: float, matching: int
) -> None:
    assert bound(Wave(percent=percent), matching) <= max(1, percent * matching / 100 + 1)


def test_online_devices_enter_first_and_the_canary_changes_with_the_rollout() -> None:
    devices = [device(f"d{n}", online=n % 2 == 0) for n in range(10)]
    order = entry_order(1, devices)
    assert [d.online for d in order] == [True] * 5 + [False] * 5
    assert entry_order(1, devices[::-1]) == order
    assert len({entry_order(rollout, devices)[0].id for rollout in range(20)}) > 2


def placed(name: str, architecture: str, site: str) -> DeviceView:
    inventory = INVENTORY.model_copy(update={"architecture": architecture})
    return replace(device(name), labels={"site": site}, inventory=inventory)


def test_each_stratum_enters_as_early_as_possible_and_then_in_proportion() -> None:
    sizes = {("x86_64", "a"): 80, ("x86_64", "b"): 15, ("aarch64", "a"): 4, ("aarch64", "b"): 1}
    devices = [
        placed(f"{architecture}-{site}-{n}", architecture, site)
        for (architecture, site), size in sizes.items()
        for n in range(size)
    ]
    order = [(d.inventory.architecture, d.labels["site"]) for d in entry_order(1, devices)]
    assert set(order[:4]) == set(sizes), "the first of each"
    half = Counter(order[:50])
    assert half == {stratum: pytest.approx(size / 2, abs=2) for stratum, size in sizes.items()}


def test_within_a_stratum_the_lot_decides_and_another_stratum_changes_nothing() -> None:
    here = [placed(f"d{n}", "x86_64", "a") for n in range(20)]
    there = [placed(f"e{n}", "x86_64", "b") for n in range(7)]
    alone = [d.id for d in entry_order(5, here)]
    assert [d.id for d in entry_order(5, [*there, *here]) if d.labels["site"] == "a"] == alone
    assert alone == sorted(alone, key=lambda name: lot_of(5, name))


def test_another_label_may_name_the_site() -> None:
    devices = [replace(device(f"d{n}"), labels={"hall": str(n % 2)}) for n in range(10)]
    assert {d.labels["hall"] for d in entry_order(1, devices, "hall")[:2]} == {"0", "1"}
