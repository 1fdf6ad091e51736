"""Train an exercise recogniser on smartwatch windows: the first version, and every later one.

Run as `python train.py --input input.json --output DIRECTORY`. The first version learns from
`inputs.base` alone; a retraining also gets `train_file`, labelled samples from the devices, and
counts each of them several times. Writes model.onnx, model.toml and baseline.parquet.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLE_WEIGHT = 5
ROWS = 100
CHANNELS = {
    "ax": "accelerometer-x",
    "ay": "accelerometer-y",
    "az": "accelerometer-z",
    "wx": "gyroscope-x",
    "wy": "gyroscope-y",
    "wz": "gyroscope-z",
}
STATISTICS = ("mean", "std", "min", "max", "mean_abs_diff")
FEATURES = [f"{channel}_{statistic}" for statistic in STATISTICS for channel in CHANNELS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    task = json.loads(arguments.input.read_text())
    arguments.output.mkdir(parents=True, exist_ok=True)

    base = pq.read_table(task["inputs"]["base"])
    tables = [base]
    baseline = pq.read_table(task["inputs"]["baseline"]).select([*FEATURES, "label", "group"])
    if task["train_file"]:
        samples = pq.read_table(task["train_file"])
        print(f"{samples.num_rows} labelled samples from {len(task['devices'])} devices")
        tables += [samples] * SAMPLE_WEIGHT
        baseline = since_the_change(samples)
    model = fit(tables, task["labels"])
    write(arguments.output, model, task["labels"], baseline)


def matrix(table: pa.Table) -> Any:
    return np.stack([table.column(name).to_numpy() for name in FEATURES], axis=1)


def fit(tables: list[pa.Table], labels: list[str]) -> Any:
    x = np.concatenate([matrix(table) for table in tables]).astype(np.float32)
    names = [name for table in tables for name in table.column("label").to_pylist()]
    y = np.array([labels.index(name) for name in names])
    model = make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (32,), alpha=0.1, max_iter=60, learning_rate_init=2e-3, batch_size=64, random_state=0
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 passes are meant to be enough
        model.fit(x, y)
    print(f"{len(x)} rows, accuracy on them {model.score(x, y):.3f}")
    return model


def since_the_change(samples: pa.Table) -> pa.Table:
    """What the devices see now; the device stands for the group. In time order."""
    now = samples.filter(pc.equal(samples.column("subset"), "since_drift"))
    now = (now if now.num_rows else samples).sort_by("taken_at")
    return now.select([*FEATURES, "label", "device"]).rename_columns([*FEATURES, "label", "group"])


def write(output: Path, model: Any, labels: list[str], baseline: pa.Table) -> None:
    onnx_model = to_onnx(
        model,
        initial_types=[("x", FloatTensorType([None, len(FEATURES)]))],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    (output / "model.onnx").write_bytes(onnx_model.SerializeToString())
    sensors = {f: CHANNELS[f.split("_", 1)[0]] for f in FEATURES}
    lines = [
        'description = "recognises shoulder exercises from two seconds of a smartwatch"',
        'scores_output = "probabilities"',
        f"labels = {json.dumps(labels)}",
        "[preprocessing]",
        'kind = "window_statistics"',
        f"rows = {ROWS}",
        f"channels = {json.dumps(list(CHANNELS))}",
        f"statistics = {json.dumps(STATISTICS)}",
        "[sensors]",
        *(f"{feature} = {json.dumps(sensor)}" for feature, sensor in sensors.items()),
    ]
    (output / "model.toml").write_text("\n".join(lines) + "\n")
    pq.write_table(baseline, output / "baseline.parquet")


if __name__ == "__main__":
    main()
