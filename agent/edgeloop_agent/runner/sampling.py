"""Which examples are sent for labelling: a random fraction, with a cap a window.

Invariant: at most `samples_max_per_window` a window, whatever the rate.
"""

import random

from edgeloop_agent.config import TelemetryConfig


class Sampler:
    def __init__(self, config: TelemetryConfig, chance: random.Random) -> None:
        self._fraction = config.sample_fraction
        self._cap = config.samples_max_per_window
        self._chance = chance
        self._taken = 0

    def take(self) -> bool:
        if self._taken >= self._cap or self._chance.random() >= self._fraction:
            return False
        self._taken += 1
        return True

    def next_window(self) -> None:
        self._taken = 0
