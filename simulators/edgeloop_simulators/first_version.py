"""The first version of a model: by the same script and contract as every later one.

Invariant: a script is given the windows to train on and those of the baseline as files; it never
sees what the devices will.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from edgeloop_controller.training.dataset import write_training_input
from edgeloop_controller.training.executor import Ending, Executor, LocalExecutor, TrainingJob
from edgeloop_simulators.datasets.windows import Dataset, write_windows
from edgeloop_simulators.errors import FirstVersionError

MEMORY_MAX_BYTES: Final = 4 * 1024**3


@dataclass(frozen=True)
class TrainedFiles:
    """What the script wrote; `draft` and `baseline` where it wrote them."""

    model: Path
    draft: Path | None
    baseline: Path | None


def write_inputs(dataset: Dataset, directory: Path) -> dict[str, str]:
    """`inputs` of every training run: the files `base` and `baseline`, by absolute path."""
    inputs = {}
    for name, windows in (("base", dataset.base), ("baseline", dataset.baseline)):
        path = (directory / f"{name}.parquet").resolve()
        write_windows(dataset, windows, path)
        inputs[name] = str(path)
    return inputs


def train_first(
    dataset: Dataset,
    script: Path,
    model: str,
    inputs: Mapping[str, str],
    directory: Path,
    *,
    slot: str,
    timeout_s: float,
    executor: Executor | None = None,
) -> TrainedFiles:
    """Run `script` in `directory`. Raises FirstVersionError with the script's own words."""
    write_training_input(
        directory,
        (),
        dataset.feature_names,
        dataset.labels,
        run_id=None,
        policy="the first version",
        model=model,
        slot=slot,
        parent=None,
        inputs=dict(inputs),
    )
    job = TrainingJob(script, directory, timeout_s, MEMORY_MAX_BYTES)
    outcome = (executor or LocalExecutor()).run(job, Event())
    if outcome.ending is not Ending.SUCCEEDED or outcome.model is None:
        raise FirstVersionError(f"{script}: {outcome.message}")
    return TrainedFiles(outcome.model, outcome.draft, outcome.baseline)
