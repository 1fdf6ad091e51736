"""What came of a virtual world."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Violation:
    """`invariant`: an id of docs/spec/invariants.md."""

    invariant: str
    at_s: float
    part: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at_s:.1f} s, {self.part}: {self.detail}"


@dataclass(frozen=True)
class Outcome:
    """`trace_hash` is over everything seen, in order; `violations` holds the first of each
    invariant, and the world ends at the first of all."""

    seed: int
    trace_hash: str
    events: int
    virtual_s: float
    violations: tuple[Violation, ...] = ()
    rollouts: Mapping[int, str] = field(default_factory=dict)
    """Rollout → its last status and verdict."""
    champions: Mapping[str, str] = field(default_factory=dict)
    """Device → `name@version` that it runs at the end, or nothing."""
    bytes_up: Mapping[str, int] = field(default_factory=dict)
    """Device → what it sent over MQTT, topics and payloads."""
    bytes_down: Mapping[str, int] = field(default_factory=dict)
    """Device → what it got, by MQTT and of artifacts."""
    telemetry_stored: int = 0
    """Records that devices numbered and the database holds, counted at the end."""
    telemetry_lost: int = 0
    """Acknowledged, or gone from a device, and not in the database; dropped ones do not count."""
    telemetry_duplicated: int = 0
