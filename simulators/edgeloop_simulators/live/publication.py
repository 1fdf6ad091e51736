"""A model of a live run's own, published and rolled out over the controller's HTTP API.

The benchmark's network with more hidden units: 50 KB, 30 features, 7 labels, a baseline.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edgeloop.client import Client
from edgeloop.toml_text import toml_text
from edgeloop_simulators.bench.model import BASELINE_ROWS, FEATURES, LABELS, mlp

NAME: Final = "live"
HIDDEN: Final = 330
MIN_COMPARED: Final = 5
PROBATION_S: Final = 0.5


def publish(url: str, directory: Path, version: str) -> str:
    """Publish `live@<version>`, of weights that the version decides; returns its name."""
    random = np.random.default_rng(int(version))
    names = [f"f{number}" for number in range(FEATURES)]
    model, draft, baseline = (
        directory / f"{version}.onnx",
        directory / f"{version}.toml",
        directory / f"{version}.parquet",
    )
    model.write_bytes(mlp(random, HIDDEN))
    draft.write_text(toml_text({"features": names, "labels": list(LABELS)}), encoding="utf-8")
    examples = random.normal(size=(BASELINE_ROWS, FEATURES)).astype(np.float32)
    table = pa.table({name: examples[:, column] for column, name in enumerate(names)})
    pq.write_table(table, baseline)
    with Client(url) as client:
        client.publish(model, NAME, version, manifest=draft, baseline=baseline)
    return f"{NAME}@{version}"


def roll_out(url: str, version: str, compare: bool = True, waves: Sequence[str] = ("100%",)) -> int:
    """To every device, by default at once; returns the rollout's id.

    The versions are unlike each other on purpose, so that the gates that compare them are open; a
    rollout that compares is not done before the devices' windows have told of the comparison.
    """
    terms = {
        "soak_s": 0,
        "min_compared": MIN_COMPARED,
        "max_disagreement": 1.0,
        "disagreement_margin": 1.0,
        "probation": {
            "min_s": PROBATION_S,
            "min_examples": MIN_COMPARED,
            "compare": compare,
        },
    }
    asked = {
        "name": NAME,
        "version": version,
        "selector": "all",
        "waves": list(waves),
        "terms": terms,
    }
    with Client(url) as client:
        return int(client.post("/rollouts", asked)["id"])


def status(url: str, rollout: int) -> str:
    with Client(url) as client:
        return str(client.get(f"/rollouts/{rollout}")["status"])
