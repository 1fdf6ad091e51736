"""A user's own stream: a CSV with a header, Parquet, or NumPy arrays, in time order.

Invariants: windows are cut only within stretches in which group, label and phase stay the same;
.npy files are read without unpickling; a file that does not fit is refused with the row or column.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgeloop_protocol.manifest import Preprocessing
from edgeloop_simulators.datasets.windows import Dataset, Floats, Portion, Window
from edgeloop_simulators.errors import DatasetError
from edgeloop_simulators.references import Reference
from edgeloop_simulators.scenario import TabularData

Texts = NDArray[np.str_]


@dataclass(frozen=True)
class _Table:
    """All rows of the file, or of both files, one behind the other."""

    values: Floats
    label: Texts
    group: Texts
    phase: Texts


def load_tabular(data: TabularData, resolve: Callable[[Path], Path]) -> Dataset:
    """Raises DatasetError, also when a group that the scenario names has no rows."""
    table = _read_phases(data, resolve)
    windows = list(_cut(table, data, data.rows))
    base = windows if not data.hop_rows else list(_cut(table, data, data.hop_rows))
    _check_groups(data, windows)
    first = [(phase, w) for phase, w in windows if w.group in data.train_groups]
    return Dataset(
        channels=data.channels,
        labels=tuple(sorted({w.label for _, w in windows})),
        preprocessing=_preprocessing(data),
        base=tuple(w for p, w in base if p == data.before and w.group in data.train_groups),
        baseline=tuple(w for phase, w in first if phase == data.before),
        portions=tuple(
            Portion(
                device_id=_device_id(group, part, data.portions),
                group=group,
                before=_part(windows, group, data.before, part, data.portions),
                after=_part(windows, group, data.after, part, data.portions),
            )
            for group in data.device_groups
            for part in range(data.portions)
        ),
    )


def _preprocessing(data: TabularData) -> Preprocessing:
    if data.rows == 1:
        return Preprocessing()
    return Preprocessing(
        kind="window_statistics",
        rows=data.rows,
        channels=data.channels,
        statistics=data.statistics,
    )


def _device_id(group: str, part: int, portions: int) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in group.lower())
    return f"device-{name}" if portions == 1 else f"device-{name}-{part + 1}"


def _check_groups(data: TabularData, windows: list[tuple[str, Window]]) -> None:
    needed = [(data.before, group) for group in data.train_groups]
    needed += [
        (phase, group) for group in data.device_groups for phase in (data.before, data.after)
    ]
    present = {(phase, window.group) for phase, window in windows}
    for phase, group in needed:
        if (phase, group) not in present:
            groups = ", ".join(sorted({g for _, g in present}))
            phases = ", ".join(sorted({p for p, _ in present}))
            raise DatasetError(
                f"{data.file}: no window of group {group!r} in phase {phase!r}; groups with "
                f"windows: {groups}; phases: {phases}"
            )


def _part(
    windows: list[tuple[str, Window]], group: str, phase: str, part: int, portions: int
) -> tuple[Window, ...]:
    """One of `portions` parts, in time, of the group's windows of each label."""
    by_label: dict[str, list[Window]] = {}
    for window in (w for p, w in windows if p == phase and w.group == group):
        by_label.setdefault(window.label, []).append(window)
    chosen = [
        window
        for same in by_label.values()
        for at, window in enumerate(same)
        if at * portions // len(same) == part
    ]
    if not chosen:
        raise DatasetError(
            f"group {group!r} has too few windows in phase {phase!r} for {portions} portions"
        )
    return tuple(chosen)


def _cut(table: _Table, data: TabularData, hop_rows: int) -> Iterator[tuple[str, Window]]:
    """Windows with their phase, in the file's order; all rows are recording 0."""
    if not len(table.label):
        return
    keys = np.stack([table.label, table.group, table.phase])
    changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    bounds = [0, *changes.tolist(), len(table.label)]
    for begin, end in pairwise(bounds):
        for start in range(begin, end - data.rows + 1, hop_rows):
            rows = table.values[start : start + data.rows]
            yield (
                str(table.phase[start]),
                Window(
                    reference=str(Reference(0, start, start + data.rows)),
                    label=str(table.label[start]),
                    group=str(table.group[start]),
                    values=rows[0] if data.rows == 1 else rows,
                ),
            )


def _read_phases(data: TabularData, resolve: Callable[[Path], Path]) -> _Table:
    first = _read(resolve(data.file), data, data.before)
    if data.after_file is None:
        return first
    second = _read(resolve(data.after_file), data, data.after)
    return _Table(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.label, second.label]),
        np.concatenate([first.group, second.group]),
        np.concatenate([first.phase, second.phase]),
    )


def _read(path: Path, data: TabularData, phase: str) -> _Table:
    column = _COLUMNS.get(path.suffix, _csv_columns)(path)
    label = column(data.label).astype(str)
    phases = column(data.phase).astype(str) if data.phase else np.full(len(label), phase)
    return _Table(_channels(path, data, column), label, column(data.group).astype(str), phases)


Column = Callable[[str], NDArray[Any]]


def _channels(path: Path, data: TabularData, column: Column) -> Floats:
    matrix = _npy(path) if path.suffix == ".npy" else None
    if matrix is not None and matrix.dtype.names is None:
        if matrix.ndim != 2 or matrix.shape[1] != len(data.channels):
            raise DatasetError(
                f"{path} has shape {matrix.shape}; expected (n, {len(data.channels)}): one column "
                "for each of channels"
            )
        values = matrix.astype(np.float32)
    else:
        values = np.stack([_numbers(path, name, column(name)) for name in data.channels], axis=1)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DatasetError(f"{path}: example {bad[0] + 1} holds NaN or Inf: drop or fill it")
    return values


def _numbers(path: Path, name: str, column: NDArray[Any]) -> Floats:
    try:
        return column.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: column {name!r} is not all numbers: {error}") from error


def _csv_columns(path: Path) -> Column:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DatasetError(f"cannot read {path} as CSV with a header: {error}") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DatasetError(f"{path}:{number}: {len(row)} fields; the header has {len(header)}")

    def column(name: str) -> NDArray[Any]:
        if name not in header:
            raise DatasetError(f"{path} has no column {name!r}; it has: {', '.join(header)}")
        at = header.index(name)
        return np.array([row[at] for row in rows])

    return column


def _parquet_columns(path: Path) -> Column:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"cannot read {path} as Parquet: {error}") from error

    def column(name: str) -> NDArray[Any]:
        if name not in table.column_names:
            known = ", ".join(table.column_names)
            raise DatasetError(f"{path} has no column {name!r}; it has: {known}")
        found = table.column(name)
        if found.null_count:
            raise DatasetError(f"{path}: column {name!r} has {found.null_count} empty cells")
        return np.asarray(found.to_numpy())

    return column


def _npy_columns(path: Path) -> Column:
    """Fields of a structured array, or arrays in files of their own beside it."""
    array = _npy(path)

    def column(name: str) -> NDArray[Any]:
        if array.dtype.names is not None:
            if name not in array.dtype.names:
                known = ", ".join(array.dtype.names)
                raise DatasetError(f"{path} has no field {name!r}; it has: {known}")
            return np.asarray(array[name])
        beside = _npy(path.parent / name)
        if beside.shape != array.shape[:1]:
            raise DatasetError(
                f"{path.parent / name} has shape {beside.shape}; expected {array.shape[:1]}, one "
                f"value for each row of {path.name}"
            )
        return beside

    return column


def _npy(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path} as .npy (no pickles): {error}") from error


_COLUMNS: Final[Mapping[str, Callable[[Path], Column]]] = {
    ".npy": _npy_columns,
    ".parquet": _parquet_columns,
}
"""By the file's suffix; any other is CSV."""
