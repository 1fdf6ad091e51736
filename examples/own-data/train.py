"""A training script of your own: `python train.py --input input.json --output DIRECTORY`.

It gets the columns of your CSV as features, and writes model.onnx. What it knows beside that goes
into model.toml (which sensor feeds which feature) and baseline.parquet (what the inputs look like
now, by which drift is judged); both are optional.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--input", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
arguments = parser.parse_args()
task = json.loads(arguments.input.read_text())
features, labels = task["features"], task["labels"]

tables = [pq.read_table(task["inputs"]["base"])]
baseline = pq.read_table(task["inputs"]["baseline"]).select([*features, "label", "group"])
if task["train_file"]:  # a retraining: labelled samples from the devices count five times
    samples = pq.read_table(task["train_file"])
    tables += [samples] * 5
    now = samples.filter([subset == "since_drift" for subset in samples["subset"].to_pylist()])
    baseline = now.select([*features, "label", "device"]).rename_columns(
        [*features, "label", "group"]
    )

rows = pa.concat_tables([table.select([*features, "label"]) for table in tables])
x = np.stack([rows[name].to_numpy() for name in features], axis=1).astype(np.float32)
y = np.array([labels.index(label) for label in rows["label"].to_pylist()])
model = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=120, random_state=0))
model.fit(x, y)
print(f"{len(x)} rows, accuracy on them {model.score(x, y):.3f}")

onnx_model = to_onnx(model, x[:1], options={id(model): {"zipmap": False}}, target_opset=17)
(arguments.output / "model.onnx").write_bytes(onnx_model.SerializeToString())
pq.write_table(baseline, arguments.output / "baseline.parquet")
sensors = "\n".join(f'{name} = "accelerometer"' for name in features)
(arguments.output / "model.toml").write_text(
    f'scores_output = "probabilities"\nlabels = {json.dumps(labels)}\n'
    f"features = {json.dumps(features)}\n[sensors]\n{sensors}\n"
)
