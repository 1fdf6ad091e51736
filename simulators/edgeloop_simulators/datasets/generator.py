"""Made-up machines: vibration and temperature by what the machine does, summer by winter.

For worlds that need data and have none. Each machine has a gain and a speed of its own; each
activity is a vibration of its own frequency and strength on three channels, with noise. Before,
it is winter; after, summer: bearings run looser (stronger, faster vibration) and all is warmer, so
that a model of the winter is often wrong.

Invariant: depends on the arguments alone.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from edgeloop_protocol.config import Config
from edgeloop_protocol.manifest import Preprocessing, Statistic
from edgeloop_simulators.datasets.windows import Dataset, Floats, Portion, Window
from edgeloop_simulators.references import Reference

CHANNELS: Final = ("vx", "vy", "vz", "temperature")
STATISTICS: Final[tuple[Statistic, ...]] = ("mean", "std", "max", "mean_abs_diff")
ACTIVITIES: Final = ("idle", "drill", "mill", "polish")
RATE_HZ: Final = 50.0
SUMMER_GAIN: Final = 1.25
SUMMER_WARMER_K: Final = 5.0


class GeneratorData(Config):
    """How many machines there are to train on and to play, and how much of each."""

    machines_to_train: PositiveInt = Field(default=5, description="at least 3 calibrate thresholds")
    machines: PositiveInt = Field(default=10, description="devices, each with windows of its own")
    windows: PositiveInt = Field(default=20, description="per activity, machine and season")
    rows: PositiveInt = 50
    seed: int = 0


def generate(data: GeneratorData) -> Dataset:
    """Each machine's windows of one season are one recording; references never overlap."""
    trained = [
        window
        for machine in range(data.machines_to_train)
        for window in _season(data, machine, summer=False)
    ]
    played = range(data.machines_to_train, data.machines_to_train + data.machines)
    return Dataset(
        channels=CHANNELS,
        labels=tuple(sorted(ACTIVITIES)),
        preprocessing=Preprocessing(
            kind="window_statistics", rows=data.rows, channels=CHANNELS, statistics=STATISTICS
        ),
        base=tuple(trained),
        baseline=tuple(trained),
        portions=tuple(
            Portion(
                device_id=f"machine-{machine - data.machines_to_train + 1}",
                group=str(machine),
                before=tuple(_season(data, machine, summer=False)),
                after=tuple(_season(data, machine, summer=True)),
            )
            for machine in played
        ),
    )


def _season(data: GeneratorData, machine: int, *, summer: bool) -> list[Window]:
    rng = np.random.default_rng((data.seed, machine, summer))
    own = np.random.default_rng((data.seed, machine)).uniform(0.9, 1.1, size=2)
    recording = 2 * machine + summer
    return [
        Window(
            reference=str(Reference(recording, at * data.rows, (at + 1) * data.rows)),
            label=ACTIVITIES[at % len(ACTIVITIES)],
            group=str(machine),
            values=_window(data.rows, at % len(ACTIVITIES), own, rng, summer),
        )
        for at in range(data.windows * len(ACTIVITIES))
    ]


def _window(
    rows: int,
    activity: int,
    own: NDArray[np.float64],
    rng: np.random.Generator,
    summer: bool,
) -> Floats:
    gain, speed = own * (SUMMER_GAIN if summer else 1.0, 1.0)
    seconds = np.arange(rows) / RATE_HZ
    frequency_hz = speed * (3.0 + activity) * (1.1 if summer else 1.0)
    turn = 2 * np.pi * (frequency_hz * seconds + rng.uniform())
    strength = gain * np.array([0.2, 1.0, 0.6]) * (0.4 + 0.3 * activity)
    phases = np.array([0.0, 0.7, 1.9])
    vibration = strength * np.sin(turn[:, None] + phases) + rng.normal(0, 0.35, (rows, 3))
    warm = 40.0 + 2.0 * activity + SUMMER_WARMER_K * summer
    temperature = warm + rng.normal(0, 3.0) + rng.normal(0, 0.1, rows)
    return np.column_stack([vibration, temperature]).astype(np.float32)
