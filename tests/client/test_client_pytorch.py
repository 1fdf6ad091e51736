"""PyTorch modules to ONNX, by each PyTorch that this machine has.

CI has none: PyPI's brings gigabytes of CUDA, and Debian's python3-torch 183 packages. Install one
and run `pytest tests/client/test_client_pytorch.py`, or name a Python that has one by
EDGELOOP_TORCH_PYTHON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeloop import MissingExtraError
from edgeloop.example import read_example
from edgeloop.publishing import export

CHILD = Path(__file__).with_name("pytorch_child.py")
CLIENT = Path(__file__).parents[2] / "client"
PYTHONS = (sys.executable, "/usr/bin/python3", os.environ.get("EDGELOOP_TORCH_PYTHON", ""))


def has_torch(python: str) -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    return Path(python).is_file() and subprocess.run([python, "-c", look]).returncode == 0


@pytest.mark.e2e
@pytest.mark.parametrize("python", PYTHONS, ids=["this", "debian", "named"])
def test_a_module_is_exported_and_answers_the_same(python: str, tmp_path: Path) -> None:
    if not has_torch(python):
        pytest.skip("no PyTorch there: see this file's first lines")
    path = os.pathsep.join(filter(None, (str(CLIENT), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    subprocess.run([python, str(CHILD), str(tmp_path)], env=environment, check=True)
    said = json.loads((tmp_path / "answers.json").read_text())
    content = (tmp_path / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rows = np.array(said["rows"], dtype=np.float32)
    for count in (1, 2, 40):
        (scores,) = session.run(["scores"], {"x": rows[:count]})
        assert np.allclose(scores, said["answers"][:count], atol=1e-5)
    assert said["kept_mode"], "dropout was on before, and is on again"
    assert said["same_bytes"]
    assert b".py" not in content, "no path of this machine"
    needs_example, needs_labels, does_not_fit = said["refusals"]
    assert "give `example`" in needs_example
    assert "scores of shape (n, labels)" in needs_labels
    assert "cannot convert Linear" in does_not_fit


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    module = type("Net", (), {"__module__": "torch.nn.modules.container"})()
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeloop\[torch\]'"):
        export(module, read_example([[0.0]]))
