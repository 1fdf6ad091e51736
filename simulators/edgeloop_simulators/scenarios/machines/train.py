"""Train a recogniser of what a machine does: the first version, and every later one.

Run as `python train.py --input input.json --output DIRECTORY`. Writes model.onnx, model.toml and
baseline.parquet. A retraining counts each labelled sample of the devices several times.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLE_WEIGHT = 5
ROWS = 50
CHANNELS = {
    "vx": "accelerometer-x",
    "vy": "accelerometer-y",
    "vz": "accelerometer-z",
    "temperature": "thermometer",
}
STATISTICS = ("mean", "std", "max", "mean_abs_diff")
FEATURES = [f"{channel}_{statistic}" for statistic in STATISTICS for channel in CHANNELS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    task = json.loads(arguments.input.read_text())
    tables = [pq.read_table(task["inputs"]["base"])]
    baseline = pq.read_table(task["inputs"]["baseline"]).select([*FEATURES, "label", "group"])
    if task["train_file"]:
        samples = pq.read_table(task["train_file"])
        tables += [samples] * SAMPLE_WEIGHT
        now = samples.filter(pc.equal(samples.column("subset"), "since_drift"))
        now = (now if now.num_rows else samples).sort_by("taken_at")
        baseline = now.select([*FEATURES, "label", "device"])
        baseline = baseline.rename_columns([*FEATURES, "label", "group"])
    rows = pa.concat_tables([table.select([*FEATURES, "label"]) for table in tables])
    x = np.stack([rows[name].to_numpy() for name in FEATURES], axis=1).astype(np.float32)
    y = np.array([task["labels"].index(name) for name in rows["label"].to_pylist()])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x, y)
    print(f"{len(x)} rows, accuracy on them {model.score(x, y):.3f}")
    onnx_model = to_onnx(model, x[:1], options={id(model): {"zipmap": False}}, target_opset=17)
    (arguments.output / "model.onnx").write_bytes(onnx_model.SerializeToString())
    pq.write_table(baseline, arguments.output / "baseline.parquet")
    (arguments.output / "model.toml").write_text(draft(task["labels"]))


def draft(labels: list[str]) -> str:
    lines = [
        'scores_output = "probabilities"',
        f"labels = {json.dumps(labels)}",
        "[preprocessing]",
        'kind = "window_statistics"',
        f"rows = {ROWS}",
        f"channels = {json.dumps(list(CHANNELS))}",
        f"statistics = {json.dumps(STATISTICS)}",
        "[sensors]",
        *(f'{name} = "{CHANNELS[name.split("_")[0]]}"' for name in FEATURES),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
