"""The smartwatch recordings that come inside the package seglearn 1.2.5.

Ten people did seven shoulder exercises with a watch on the right wrist and on the left; six
channels at 50 Hz. The world changes when the wearers move the watch from the right wrist to the
left. A device is one person's watch and one part (in time) of each of their recordings.

Invariants: seglearn is never imported (it would import pandas); the file is a pickle, so it is
read only after its SHA-256 was found to be the known one.
"""

import hashlib
import importlib.util
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeloop_protocol.manifest import Preprocessing
from edgeloop_simulators.datasets.windows import Dataset, Floats, Portion, Window
from edgeloop_simulators.errors import DatasetError
from edgeloop_simulators.references import Reference
from edgeloop_simulators.scenario import WatchData

SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
CHANNELS: Final = ("ax", "ay", "az", "wx", "wy", "wz")
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Recording:
    """One person doing one exercise with the watch on one wrist; `rows` is (n, 6), 50 Hz."""

    number: int
    person: int
    wrist: int
    exercise: str
    rows: Floats


def find_file() -> Path:
    """Where seglearn's data lies, without importing seglearn. Raises DatasetError."""
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(
            "the smartwatch recordings come inside the package seglearn, which is not installed: "
            "pip install --no-deps seglearn==1.2.5"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"


def read_recordings(path: Path) -> tuple[Recording, ...]:
    """Raises DatasetError unless the file's SHA-256 is the known one: unpickling runs code."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error}; install seglearn==1.2.5") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DatasetError(
            f"{path} has SHA-256 {digest}, not {SHA256}: it is a pickle and is not read; "
            "install seglearn==1.2.5 anew"
        )
    document = np.load(io.BytesIO(content), allow_pickle=True).item()
    return tuple(
        Recording(number, int(person), int(wrist), str(document["y_labels"][int(y)]), rows)
        for number, (rows, person, wrist, y) in enumerate(
            zip(
                (np.asarray(x, dtype=np.float32) for x in document["X"]),
                document["subject"],
                document["side"],
                document["y"],
                strict=True,
            )
        )
    )


def load_watch(data: WatchData) -> Dataset:
    """Deal the recordings out: training people's right wrists, and the devices' both wrists."""
    recordings = read_recordings(find_file())
    known = {r.person for r in recordings}
    unknown = sorted((set(data.train_people) | set(data.device_people)) - known)
    if unknown:
        raise DatasetError(f"no such people in the recordings: {unknown}; known: {sorted(known)}")
    trained = [r for r in recordings if r.person in data.train_people and r.wrist == RIGHT]
    return Dataset(
        channels=CHANNELS,
        labels=tuple(sorted({r.exercise for r in recordings})),
        preprocessing=Preprocessing(
            kind="window_statistics",
            rows=data.rows,
            channels=CHANNELS,
            statistics=data.statistics,
        ),
        base=_in_time_order(trained, data.rows, data.train_hop_rows),
        baseline=_in_time_order(trained, data.rows, data.rows),
        portions=tuple(
            Portion(
                device_id=f"watch-{person}{chr(ord('a') + part)}",
                group=str(person),
                before=_part(recordings, person, RIGHT, part, data),
                after=_part(recordings, person, LEFT, part, data),
            )
            for person in data.device_people
            for part in range(data.portions)
        ),
    )


def _in_time_order(recordings: list[Recording], rows: int, hop_rows: int) -> tuple[Window, ...]:
    """Windows by person and by how far into its recording each lies, as if each person had done
    all exercises in turns: the first half of a person's rows then holds every exercise."""
    placed = [(w.group, at, w) for r in recordings for at, w in _cut(r, rows, hop_rows)]
    return tuple(
        w for _, _, w in sorted(placed, key=lambda one: (one[0], one[1], one[2].reference))
    )


def _part(
    recordings: tuple[Recording, ...], person: int, wrist: int, part: int, data: WatchData
) -> tuple[Window, ...]:
    return tuple(
        window
        for recording in recordings
        if recording.person == person and recording.wrist == wrist
        for at, window in _cut(recording, data.rows, data.rows)
        if int(at * data.portions) == part
    )


def _cut(recording: Recording, rows: int, hop_rows: int) -> Iterator[tuple[float, Window]]:
    """Each window with where it lies in its recording, between 0 and 1."""
    starts = range(0, len(recording.rows) - rows + 1, hop_rows)
    for index, start in enumerate(starts):
        reference = Reference(recording.number, start, start + rows)
        values = recording.rows[start : start + rows]
        yield (
            (index + 0.5) / len(starts),
            Window(str(reference), recording.exercise, str(recording.person), values),
        )
