"""Running a user's training script: the `Executor` port, and a local subprocess.

Invariants: a run ends within its time limit whatever the script does; no process of its group
outlives it; its memory and its log are bounded; it sees only the allow-listed environment.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Protocol


class Ending(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    NO_MODEL = "no_model"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"


@dataclass(frozen=True)
class TrainingJob:
    """`directory` holds input.json (see training.dataset); output/ and log.txt appear in it."""

    script: Path
    directory: Path
    timeout_s: float
    memory_max_bytes: int


@dataclass(frozen=True)
class Outcome:
    """How a script ended; `message` says it in words, with the tail of the log where it failed."""

    ending: Ending
    message: str
    duration_s: float
    exit_code: int | None = None
    model: Path | None = None
    draft: Path | None = None
    """output/model.toml, if the script wrote one."""
    baseline: Path | None = None
    """output/baseline.parquet, if the script wrote one."""


class Executor(Protocol):
    """Where training scripts run."""

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        """Blocks until the script ended, timed out, or `cancel` was set. Raises nothing."""


class LocalExecutor:
    """`python <script> --input <dir>/input.json --output <dir>/output`, in its own process group.

    Runs in <dir>; log in <dir>/log.txt, its middle cut out beyond LOG_MAX_BYTES.
    """

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        raise NotImplementedError
