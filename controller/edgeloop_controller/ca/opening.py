"""The authority, opened at first need: a controller whose devices need none makes no key."""

import threading
from collections.abc import Callable
from pathlib import Path

from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.config import CaConfig
from edgeloop_protocol.clock import Clock


def opened_once(directory: Path, config: CaConfig, clock: Clock) -> Callable[[], Authority]:
    """What it gives raises StartError as long as the authority cannot be opened."""
    lock = threading.Lock()
    opened: list[Authority] = []

    def authority() -> Authority:
        with lock:
            if not opened:
                opened.append(Authority(directory, config, clock.wall()))
            return opened[0]

    return authority
