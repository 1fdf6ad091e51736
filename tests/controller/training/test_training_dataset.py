"""Samples become a file that the script sees and a part that it never sees."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_controller.errors import TrainingError
from edgeloop_controller.training.dataset import (
    LabelledSample,
    TrainingInput,
    held_back,
    split,
    write_training_input,
)
from edgeloop_protocol.messages import VersionRef

PARENT = VersionRef(name="gait", version="1", manifest_digest="1" * 64)


def sample(number: int, label: str = "walk", **changes: object) -> LabelledSample:
    values: dict[str, object] = {
        "reference": f"r{number}:0-100",
        "device_id": f"d{number % 3}",
        "taken_at": 1000.0 + number,
        "version": "gait@1",
        "features": np.array([number, -number], dtype="<f4").tobytes(),
        "label": label,
    }
    return LabelledSample(**{**values, **changes})  # type: ignore[arg-type]


def write(directory: Path, samples: list[LabelledSample], **changes: object) -> TrainingInput:
    arguments: dict[str, object] = {
        "run_id": 7, "policy": "gait", "model": "gait", "slot": "main", "parent": PARENT,
        "inputs": {},
    }  # fmt: skip
    return write_training_input(
        directory,
        samples,
        ("x", "y"),
        ("walk", "run"),
        **{**arguments, **changes},  # type: ignore[arg-type]
    )


@given(st.lists(st.integers(0, 40), max_size=80), st.floats(0.05, 0.95))
def test_no_reference_stands_on_both_sides(numbers: list[int], fraction: float) -> None:
    samples = [sample(n) for n in numbers]
    parts = split(samples, fraction)
    train, back = ({s.reference for s in part} for part in (parts.train, parts.held_back))
    assert not train & back
    assert train | back == {s.reference for s in samples}
    assert len(parts.train) + len(parts.held_back) == len(set(numbers))


def test_the_side_of_a_reference_never_changes_and_the_share_is_kept() -> None:
    first = split([sample(n) for n in range(2000)], 0.3)
    again = split([sample(n) for n in range(1000, 3000)], 0.3)
    assert len(first.held_back) / 2000 == pytest.approx(0.3, abs=0.04)
    trained = {s.reference for s in first.train}
    assert not trained & {s.reference for s in again.held_back}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=60))
def test_devices_with_equal_references_keep_their_own_samples(pairs: list[tuple[int, int]]) -> None:
    parts = split([sample(n, device_id=f"d{d}", reference=f"f.csv#{n}") for d, n in pairs], 0.5)
    kept = [(s.device_id, s.reference) for s in (*parts.train, *parts.held_back)]
    assert sorted(kept) == sorted({(f"d{d}", f"f.csv#{n}") for d, n in pairs})
    assert not {s.reference for s in parts.train} & {s.reference for s in parts.held_back}


def test_the_last_one_of_a_reference_counts() -> None:
    parts = split([sample(1, "walk"), sample(1, "run")], 0.5)
    assert [s.label for s in (*parts.train, *parts.held_back)] == ["run"]


def test_the_file_and_its_description_agree(tmp_path: Path) -> None:
    script_input = tmp_path / "base.npz"
    script_input.write_bytes(b"x")
    told = write(
        tmp_path / "run", [sample(1), sample(2, "run")], inputs={"base": str(script_input)}
    )
    document = json.loads((tmp_path / "run" / "input.json").read_text())
    assert TrainingInput.model_validate(document) == told
    assert document["inputs"] == {"base": str(script_input)}
    assert (told.rows, told.data_from, told.data_to) == (2, 1001.0, 1002.0)
    assert told.devices == ("d1", "d2")
    table = pq.read_table(document["train_file"]).to_pylist()
    assert table[1] == {
        "x": 2.0, "y": -2.0, "label": "run", "reference": "r2:0-100", "device": "d2",
        "taken_at": 1002.0, "version": "gait@1", "subset": "",
    }  # fmt: skip


def test_a_run_without_samples_has_no_file(tmp_path: Path) -> None:
    told = write(tmp_path / "run", [])
    assert (told.train_file, told.rows) == (None, 0)
    assert not (tmp_path / "run" / "train.parquet").exists()


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="input 'base' of the policy is not there"):
        write(tmp_path / "a", [sample(1)], inputs={"base": str(tmp_path / "no")})
    wide = sample(1, features=np.zeros(5, dtype="<f4").tobytes())
    with pytest.raises(TrainingError, match="of d1 has 5 features; the model has 2"):
        write(tmp_path / "b", [wide])
    with pytest.raises(TrainingError, match="has 5 features"):
        held_back([wide], ("x", "y"))


def test_held_back_arrays_keep_the_order() -> None:
    arrays = held_back([sample(3, subset="left"), sample(4, recent=False)], ("x", "y"))
    assert arrays.features.tolist() == [[3.0, -3.0], [4.0, -4.0]]
    assert (arrays.subsets, arrays.recent) == (("left", ""), (True, False))
    assert held_back([], ("x", "y")).features.shape == (0, 2)
