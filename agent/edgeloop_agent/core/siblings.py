"""Slots that are to change together: none is tried while another's version is still being fetched.

Invariants: a wait for siblings has an end (`wait_s_max`, BOOTS_HELD_MAX) and does no harm: what
runs runs on; only a version that was never tried waits; who waits for room holds nobody, for the
room may be what the others give back. See docs/adr/0020.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from edgeloop_agent.core.snapshot import SlotSnapshot

BOOTS_HELD_MAX: Final = 10
"""A device that boots more often than it waits would wait for ever."""


class SlotView(Protocol):
    durable: SlotSnapshot

    @property
    def is_ready(self) -> bool:
        """Its version is staged, and nothing of its own keeps it from being tried."""

    @property
    def is_coming(self) -> bool:
        """Its version is being fetched, and nothing but the link is waited for."""


class Siblings:
    """Of one device: until when which slot waits."""

    def __init__(self, wait_s_max: float) -> None:
        self._wait_s_max = wait_s_max
        self._until: dict[str, float] = {}

    def look(self, slots: Mapping[str, SlotView], now: float) -> dict[str, str]:
        """Each slot that is ready: whom it waits for, in words; empty: it is tried now."""
        ready = [name for name, slot in slots.items() if slot.is_ready]
        if not ready:
            self._until = {}
            return {}
        coming = [name for name, slot in slots.items() if slot.is_coming]
        waits = {name: self._waits_until(slots[name], coming, now) for name in ready}
        self._until = {name: until for name, until in waits.items() if until is not None}
        return {name: _in_words(coming) if name in self._until else "" for name in ready}

    def next_deadline(self) -> float | None:
        """When a wait ends at the latest."""
        return min(self._until.values(), default=None)

    def _waits_until(self, slot: SlotView, coming: list[str], now: float) -> float | None:
        """None: it does not wait."""
        candidate = slot.durable.candidate
        if not coming or candidate is None or candidate.attempts:
            return None
        if candidate.boots_held >= BOOTS_HELD_MAX:
            return None
        until = self._until.get(slot.durable.slot, now + self._wait_s_max)
        return until if now < until else None


def _in_words(coming: list[str]) -> str:
    slots = f"slot {coming[0]}" if len(coming) == 1 else f"slots {', '.join(coming)}"
    return f"waiting for {slots} to be downloaded"
