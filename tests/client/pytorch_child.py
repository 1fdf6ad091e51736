"""Exports a module by the PyTorch of the Python that runs this: `pytorch_child.py DIRECTORY`.

Writes model.onnx, and what the module answers to some rows into answers.json. Needs no more than
numpy and torch beside the client: Debian's Python 3 with python3-torch will do.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from edgeloop.errors import ModelError
from edgeloop.example import read_example
from edgeloop.export.pytorch import export_module

OUT = Path(sys.argv[1])


class SumsUp(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=1)


def refusal(module: torch.nn.Module, rows: object) -> str:
    try:
        export_module(module, None if rows is None else read_example(rows))
    except ModelError as error:
        return str(error)
    return ""


torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
)
rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
exported = export_module(network, read_example(torch.from_numpy(rows)))
(OUT / "model.onnx").write_bytes(exported.content)
kept_mode = network.training
network.eval()
with torch.no_grad():
    answers = network(torch.from_numpy(rows)).numpy().tolist()
said = {
    "torch": torch.__version__,
    "draft": exported.draft,
    "kept_mode": kept_mode,
    "same_bytes": export_module(network, read_example(rows)).content == exported.content,
    "rows": rows.tolist(),
    "answers": answers,
    "refusals": [
        refusal(network, None),
        refusal(SumsUp(), rows),
        refusal(torch.nn.Linear(9, 2), rows),
    ],
}
(OUT / "answers.json").write_text(json.dumps(said))
