"""A controller killed with -9 at random, through rollouts over a thousand live devices: the outcome
is that of a controller that lives.

Cites EL-INV-5 of docs/spec/invariants.md.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop_simulators.live.fleet import FleetTerms, LiveFleet
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.publication import publish, roll_out
from edgeloop_simulators.live.runners import Misbehaviour, RunnerTerms

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

DEVICES = 1000
KILLS = 4
WAVES = ("1", "20%", "100%")
PATIENCE_S = 180.0


def test_killed_at_random_it_does_as_if_it_lived(mosquitto: Any, tmp_path: Path) -> None:
    async def play() -> None:
        bad = (Misbehaviour("nan", "live@2", 1.0),)
        async with Middle(tmp_path / "middle", DEVICES, tick_s=0.2) as middle:
            terms = FleetTerms(
                middle.url,
                middle.address,
                DEVICES,
                runners=RunnerTerms(examples_per_s=20.0, window_s=5.0, misbehaviours=bad),
            )
            with closing(SharedInference()) as inference:
                fleet = LiveFleet(terms, inference)
                try:
                    await fleet.start()
                    await until(lambda: fleet.connected == DEVICES)
                    await asyncio.to_thread(publish, middle.url, tmp_path, "1")
                    await asyncio.to_thread(publish, middle.url, tmp_path, "2")
                    await _a_good_one(middle, fleet)
                    await _a_bad_one(middle, fleet)
                finally:
                    await fleet.close()

    asyncio.run(play())


async def _a_good_one(middle: Middle, fleet: LiveFleet) -> None:
    rollout = await asyncio.to_thread(roll_out, middle.url, "1", False, WAVES)
    await _kill_at_random(middle, 1)
    await until(lambda: fleet.standing.champions["live@1"] == DEVICES)
    await until(lambda: _shown(middle, rollout)["status"] == "done", 0.2)
    shown = _shown(middle, rollout)
    assert {m["phase"] for m in shown["devices"]} == {"committed"}
    assert len(shown["devices"]) == DEVICES
    assert Counter(m["wave"] for m in shown["devices"]) == {1: 1, 2: 199, 3: 800}
    assert _events(middle, "rollout.") == [
        "rollout.started",
        *["rollout.wave_started"] * len(WAVES),
        "rollout.done",
    ]
    assert not fleet.standing.refusals


async def _a_bad_one(middle: Middle, fleet: LiveFleet) -> None:
    rollout = await asyncio.to_thread(roll_out, middle.url, "2", False, WAVES)
    await _kill_at_random(middle, 2)
    await until(lambda: _shown(middle, rollout)["status"] == "halted", 0.2)
    exposed = [m for m in _shown(middle, rollout)["devices"] if m["offered_at"] is not None]
    assert len(exposed) == 1
    await until(lambda: fleet.standing.champions["live@1"] == DEVICES)
    assert fleet.standing.refusals == Counter({"live@2: nan or inf": 1})


async def _kill_at_random(middle: Middle, seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(KILLS):
        await asyncio.sleep(luck.uniform(0.0, 1.5))
        middle.controller.kill()
        await middle.start_controller()


def _shown(middle: Middle, rollout: int) -> Any:
    return _get(middle, f"/rollouts/{rollout}") or {"status": "unreachable"}


def _events(middle: Middle, kind: str) -> list[str]:
    return [event["kind"] for event in _get(middle, "/events", kind=kind)["items"]]


def _get(middle: Middle, path: str, **query: str) -> Any:
    try:
        with Client(middle.url) as client:
            return client.get(path, **query)
    except ApiError as error:
        if error.status is not None:
            raise
        return None


async def until(condition: Callable[[], Any], every_s: float = 0.05) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(every_s)
