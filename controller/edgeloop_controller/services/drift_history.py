"""What each device said under a version, kept as the windows come: its first ones and its last.

Invariants: each window is read from the database once; at most the windows that cover the needed
examples twice are kept for a device; a process that starts again reads them again.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop_controller.core.drift import DeviceHistory, DriftWindow
from edgeloop_controller.core.drift_scores import Bins
from edgeloop_controller.store.tables import Window
from edgeloop_protocol.messages import Sketches


@dataclass
class _Device:
    first: list[DriftWindow] = field(default_factory=list)
    first_examples: int = 0
    last: deque[DriftWindow] = field(default_factory=deque)
    last_examples: int = 0
    heard_at: float = 0.0
    history: DeviceHistory | None = None
    """As it was handed out; None once there is more."""

    def add(self, window: DriftWindow, needed: int) -> None:
        self.history = None
        if self.first_examples < needed:
            self.first.append(window)
            self.first_examples += window.count
        self.last.append(window)
        self.last_examples += window.count
        while self.last_examples - self.last[0].count >= needed:
            self.last_examples -= self.last.popleft().count


@dataclass
class VersionHistory:
    """Of one version on one slot; `needed` examples make a part (core.drift.examples_needed).

    Windows that are not over the baseline's bins are passed over."""

    needed: int
    bins: Bins
    read_through: int = 0
    _devices: dict[str, _Device] = field(default_factory=dict)

    def add(self, rows: Iterable[Window]) -> int:
        """Rows in the order of their ids, each above `read_through`; returns how many served.

        All that a device ever said under the version is read, however old: its first windows are
        its reference, and a later reference would take a drifted world for the usual one.
        """
        served = 0
        for row in rows:
            self.read_through = row.id
            window = self._window(row)
            if window is not None:
                device = self._devices.setdefault(row.device_id, _Device())
                device.add(window, self.needed)
                device.heard_at = row.received_at
                served += 1
        return served

    def of_devices(
        self,
        labels: Mapping[str, Mapping[str, str]],
        faulty: Iterable[str],
        heard_since: float,
    ) -> list[DeviceHistory]:
        """Histories of the devices in `labels` (id → effective labels); others are forgotten.

        A device that said nothing since `heard_since` is left out: it is not judged by its past.
        What is as it was is the same object as before.
        """
        for gone in set(self._devices) - set(labels):
            del self._devices[gone]
        broken = set(faulty)
        return [
            _history(device_id, device, labels[device_id], device_id in broken)
            for device_id, device in sorted(self._devices.items())
            if device.heard_at >= heard_since
        ]

    def _window(self, row: Window) -> DriftWindow | None:
        body: dict[str, Any] = row.body
        counts = self.bins.row([*body["features"], body["predictions"], body["confidence"]])
        if counts is None or row.count <= 0:
            return None
        sketches = Sketches.model_validate(row.sketches) if row.sketches else None
        return DriftWindow(row.id, row.count, counts, sketches)


def _history(
    device_id: str, device: _Device, labels: Mapping[str, str], broken: bool
) -> DeviceHistory:
    known = device.history
    if known is None or known.labels != labels or known.sensor_fault_open != broken:
        known = DeviceHistory(device_id, labels, tuple(device.first), tuple(device.last), broken)
        device.history = known
    return known
