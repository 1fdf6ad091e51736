"""Datasets: no row is both trained on and played, none on two devices; bad files say so."""

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgeloop_simulators.datasets import watch
from edgeloop_simulators.datasets.tabular import load_tabular
from edgeloop_simulators.datasets.windows import Dataset, play, write_windows
from edgeloop_simulators.errors import DatasetError
from edgeloop_simulators.references import RowRanges, parse_reference
from edgeloop_simulators.scenario import TabularData, WatchData


@pytest.fixture(scope="module")
def recordings() -> Dataset:
    data = WatchData(kind="watch", train_people=(2, 4), device_people=(1, 3), portions=2)
    return watch.load_watch(data)


def test_no_two_devices_share_a_row(recordings: Dataset) -> None:
    seen = RowRanges()
    for portion in recordings.portions:
        mine = [w.reference for w in (*portion.before, *portion.after)]
        assert not any(seen.overlaps(reference) for reference in mine)
        for reference in mine:
            seen.add(reference)


def test_devices_see_no_row_that_is_trained_on(recordings: Dataset) -> None:
    trained = RowRanges(w.reference for w in (*recordings.base, *recordings.baseline))
    assert len(trained) > 0
    for portion in recordings.portions:
        for window in (*portion.before, *portion.after):
            assert not trained.overlaps(window.reference)


def test_a_watch_has_every_exercise_on_both_wrists(recordings: Dataset) -> None:
    for portion in recordings.portions:
        assert {w.label for w in portion.before} == set(recordings.labels)
        assert {w.label for w in portion.after} == set(recordings.labels)
        assert {w.values.shape for w in portion.before} == {(100, 6)}


def test_each_half_of_a_person_s_baseline_holds_every_exercise(recordings: Dataset) -> None:
    """Thresholds are calibrated on halves in time, so the rows must be in time order."""
    for person in ("2", "4"):
        rows = [w.label for w in recordings.baseline if w.group == person]
        assert set(rows[: len(rows) // 2]) == set(rows[len(rows) // 2 :]) == set(recordings.labels)


def test_a_loop_plays_every_window_once_in_blocks_of_one_label(recordings: Dataset) -> None:
    windows = recordings.portions[0].before
    stream = play(windows, 5, Random(1))
    for _ in range(3):
        loop = list(islice(stream, len(windows)))
        assert Counter(w.reference for w in loop) == Counter(w.reference for w in windows)
    changes = sum(a.label != b.label for a, b in pairwise(loop))
    assert changes < len(windows) / 3


def test_unknown_people_are_named(recordings: Dataset) -> None:
    data = WatchData(kind="watch", train_people=(2,), device_people=(11,))
    with pytest.raises(DatasetError, match=r"\[11\]; known: \[1, 2"):
        watch.load_watch(data)


def test_a_file_with_another_hash_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "watch_dataset.npy"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DatasetError, match="is a pickle and is not read"):
        watch.read_recordings(path)


HEADER = "who,when,what,x,y\n"


def csv_file(tmp_path: Path, rows: list[str], header: str = HEADER) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def tabular(**changes: object) -> TabularData:
    values: dict[str, object] = {
        "kind": "tabular",
        "file": Path("data.csv"),
        "channels": ("x", "y"),
        "label": "what",
        "group": "who",
        "phase": "when",
        "train_groups": ("a",),
        "device_groups": ("b",),
    }
    return TabularData.model_validate(values | changes)


def stream(rows: int = 6) -> list[str]:
    return [
        f"{who},{when},{what},{i},{i * 2}"
        for who in ("a", "b")
        for when in ("before", "after")
        for what in ("up", "down")
        for i in range(rows)
    ]


def test_each_row_of_a_csv_may_be_an_example(tmp_path: Path) -> None:
    csv_file(tmp_path, stream())
    dataset = load_tabular(tabular(), tmp_path.joinpath)
    assert dataset.feature_names == ("x", "y")
    assert len(dataset.base) == 12
    (portion,) = dataset.portions
    assert portion.device_id == "device-b"
    assert [len(portion.before), len(portion.after)] == [12, 12]
    assert portion.before[1].values.tolist() == [1.0, 2.0]


def parquet_file(tmp_path: Path, rows: list[str], **replaced: object) -> None:
    cells = zip(*(row.split(",") for row in rows), strict=True)
    columns = dict(zip(HEADER.strip().split(","), map(list, cells), strict=True))
    columns |= {name: [float(x) for x in columns[name]] for name in ("x", "y")} | replaced
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    csv_file(tmp_path, stream())
    parquet_file(tmp_path, stream())
    of_csv = load_tabular(tabular(), tmp_path.joinpath)
    of_parquet = load_tabular(tabular(file=Path("data.parquet")), tmp_path.joinpath)
    assert repr(of_parquet) == repr(of_csv)


def test_a_parquet_that_does_not_fit_says_so(tmp_path: Path) -> None:
    data = tabular(file=Path("data.parquet"))
    with pytest.raises(DatasetError, match=r"cannot read .*data.parquet as Parquet"):
        load_tabular(data, tmp_path.joinpath)
    rows = stream()
    parquet_file(tmp_path, rows)
    with pytest.raises(DatasetError, match="no column 'z'; it has: who, when, what, x, y"):
        load_tabular(tabular(file=Path("data.parquet"), channels=("z",)), tmp_path.joinpath)
    parquet_file(tmp_path, rows, x=[None, *map(float, range(1, len(rows)))])
    with pytest.raises(DatasetError, match="column 'x' has 1 empty cells"):
        load_tabular(data, tmp_path.joinpath)
    parquet_file(tmp_path, rows, x=["warm"] * len(rows))
    with pytest.raises(DatasetError, match="column 'x' is not all numbers"):
        load_tabular(data, tmp_path.joinpath)


def test_windows_are_cut_within_one_label_group_and_phase(tmp_path: Path) -> None:
    csv_file(tmp_path, stream(rows=7))
    data = tabular(rows=3, hop_rows=1, statistics=("mean", "std"))
    dataset = load_tabular(data, tmp_path.joinpath)
    assert dataset.feature_names == ("x_mean", "y_mean", "x_std", "y_std")
    assert len(dataset.base) == 2 * 5
    assert len(dataset.baseline) == 2 * 2
    for window in dataset.portions[0].before:
        reference = parse_reference(window.reference)
        assert reference.start // 7 == (reference.end - 1) // 7
        assert window.values.shape == (3, 2)


def test_two_files_may_be_the_two_phases(tmp_path: Path) -> None:
    header = "who,what,x,y\n"
    rows = [f"{who},up,{i},{i}" for who in ("a", "b") for i in range(4)]
    csv_file(tmp_path, rows, header).rename(tmp_path / "first.csv")
    csv_file(tmp_path, rows[::-1], header)
    data = tabular(file=Path("first.csv"), after_file=Path("data.csv"), phase=None)
    (portion,) = load_tabular(data, tmp_path.joinpath).portions
    assert [w.values[0] for w in portion.before] == [0, 1, 2, 3]
    assert [w.values[0] for w in portion.after] == [3, 2, 1, 0]
    both = [w.reference for w in (*portion.before, *portion.after)]
    assert len(set(both)) == 8


def test_numpy_arrays_beside_each_other(tmp_path: Path) -> None:
    rows = [row.split(",") for row in stream()]
    np.save(tmp_path / "x.npy", np.array([[float(r[3]), float(r[4])] for r in rows]))
    for name, column in (("who", 0), ("when", 1), ("what", 2)):
        np.save(tmp_path / f"{name}.npy", np.array([r[column] for r in rows]))
    data = tabular(file=Path("x.npy"), label="what.npy", group="who.npy", phase="when.npy")
    dataset = load_tabular(data, tmp_path.joinpath)
    assert dataset.labels == ("down", "up")
    assert len(dataset.portions[0].after) == 12


def test_a_structured_array_has_its_columns(tmp_path: Path) -> None:
    kinds = [("who", "U1"), ("when", "U6"), ("what", "U4"), ("x", "f4"), ("y", "f4")]
    rows = [tuple(row.split(",")) for row in stream()]
    np.save(tmp_path / "x.npy", np.array(rows, dtype=kinds))
    assert len(load_tabular(tabular(file=Path("x.npy")), tmp_path.joinpath).base) == 12


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        (["a,before,up,1"], {}, r"data.csv:2: 4 fields; the header has 5"),
        (["a,before,up,1,two"], {}, "column 'y' is not all numbers"),
        (["a,before,up,1,nan"], {}, "example 1 holds NaN or Inf"),
        (stream(), {"channels": ("x", "z")}, "no column 'z'; it has: who, when"),
        (stream(), {"device_groups": ("c",)}, "no window of group 'c' in phase 'before'"),
        (stream(), {"after": "later"}, "phases: after, before"),
        (stream(), {"rows": 100}, "no window of group 'a'"),
        (stream(1), {"portions": 5}, "too few windows"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, rows: list[str], changes: dict[str, object], says: str
) -> None:
    csv_file(tmp_path, rows)
    with pytest.raises(DatasetError, match=says):
        load_tabular(tabular(**changes), tmp_path.joinpath)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="no pickles"):
        load_tabular(tabular(file=Path("x.npy")), tmp_path.joinpath)


def test_written_windows_are_features_and_what_they_are(
    tmp_path: Path, recordings: Dataset
) -> None:
    import pyarrow.parquet as pq

    write_windows(recordings, recordings.baseline, tmp_path / "w.parquet")
    table = pq.read_table(tmp_path / "w.parquet")
    assert table.column_names == [*recordings.feature_names, "label", "group", "reference"]
    assert table.num_rows == len(recordings.baseline)
    first = recordings.baseline[0].values
    assert table["ax_mean"][0].as_py() == pytest.approx(float(first[:, 0].mean()), abs=1e-5)
