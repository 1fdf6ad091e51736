"""A real controller makes a patch, a real agent updates by it (ADR 0015)."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeloop.client import Client
from edgeloop.toml_text import toml_text
from edgeloop_simulators.bench.model import FEATURES, LABELS, mlp
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.publication import NAME, roll_out
from edgeloop_simulators.live.real_agents import RealAgents

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

HIDDEN = 2000
PATIENCE_S = 90.0


def moved(model: bytes, by: float) -> bytes:
    """The same network after a little more training."""
    random = np.random.default_rng(1)
    loaded = onnx.load_from_string(model)
    for tensor in loaded.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        changed = weights + np.float32(by) * random.normal(size=weights.shape)
        tensor.raw_data = changed.astype(np.float32).tobytes()
    return bytes(loaded.SerializeToString())


def publish(url: str, directory: Path, version: str, model: bytes) -> str:
    at, draft = directory / f"{version}.onnx", directory / "model.toml"
    at.write_bytes(model)
    names = [f"f{number}" for number in range(FEATURES)]
    draft.write_text(toml_text({"features": names, "labels": list(LABELS)}), encoding="utf-8")
    with Client(url) as client:
        client.publish(at, NAME, version, manifest=draft)
    return f"{NAME}@{version}"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.1)


def test_an_update_costs_a_device_its_patch_and_no_more(mosquitto: Any, tmp_path: Path) -> None:
    """EL-ART-4."""
    first = mlp(np.random.default_rng(0), HIDDEN)
    second = moved(first, 1e-4)

    async def play() -> dict[str, Any]:
        async with Middle(tmp_path / "middle", 10, tick_s=0.2) as middle:
            examples = tmp_path / "examples.npy"
            rows = np.random.default_rng(0).normal(size=(200, FEATURES)).astype(np.float32)
            np.save(examples, rows)
            agents = RealAgents(tmp_path / "agents", middle.url, middle.address, examples, {})

            def events(kind: str) -> list[dict[str, Any]]:
                with Client(middle.url) as client:
                    return list(client.get("/events", kind=kind)["items"])

            def is_done(rollout: int) -> bool:
                with Client(middle.url) as client:
                    return bool(client.get(f"/rollouts/{rollout}")["status"] == "done")

            with closing(agents):
                agents.start("real")
                with Client(middle.url) as client:
                    await until(lambda: client.get("/devices")["items"])
                for version, model in (("1", first), ("2", second)):
                    name = publish(middle.url, tmp_path, version, model)
                    if version == "2":
                        await until(lambda: events("patch.made"))
                    rollout = roll_out(middle.url, version, compare=False)
                    await until(lambda name=name: agents.champions() == {"real": name})
                    await until(lambda rollout=rollout: is_done(rollout))
                await until(lambda: events("device.patched") or events("device.patch_failed"))
                return {kind: events(kind) for kind in ("device.patched", "device.patch_failed")}

    said = asyncio.run(play())
    assert said["device.patch_failed"] == []
    (patched,) = said["device.patched"]
    assert f"in place of {len(second)}" in str(patched)
