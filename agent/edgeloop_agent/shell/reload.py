"""A configuration read again while the agent runs: what changes at once, and what does not.

Invariants: pure; what is not known to be changeable live needs a restart of the agent and is named;
`config` is what holds from now on, so that a second look says the same of what still waits.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from edgeloop_agent.config import AgentConfig

AT_ONCE: Final = frozenset({"log_level", "log_format", "labels"})
OF_RUNNERS: Final = frozenset(
    {"window_s", "sketch_every", "sample_fraction", "samples_max_per_window"}
)
"""The keys of [telemetry] that a runner is started with."""
OF_DOWNLOADS: Final = frozenset({"download_bytes_per_s_max"})
"""The keys of [limits] that hold from the next read on."""


@dataclass(frozen=True, slots=True)
class Reload:
    config: AgentConfig
    at_once: tuple[str, ...]
    restart_slots: tuple[str, ...]
    waits: tuple[str, ...]
    """Keys that need a restart of the agent."""

    def in_words(self) -> str:
        said = [
            f"changed: {', '.join(self.at_once)}" if self.at_once else "",
            f"runners begin anew: {', '.join(self.restart_slots)}" if self.restart_slots else "",
            f"needs a restart of the agent: {', '.join(self.waits)}" if self.waits else "",
        ]
        return "; ".join(filter(None, said)) or "nothing changed"


def plan(old: AgentConfig, new: AgentConfig) -> Reload:
    differing = _differing(old, new)
    at_once = differing & AT_ONCE
    update = {key: getattr(new, key) for key in at_once}
    telemetry = _differing(old.telemetry, new.telemetry)
    of_runners = telemetry & OF_RUNNERS
    update["telemetry"] = old.telemetry.model_copy(
        update={key: getattr(new.telemetry, key) for key in of_runners}
    )
    limits = _differing(old.limits, new.limits)
    of_downloads = limits & OF_DOWNLOADS
    update["limits"] = old.limits.model_copy(
        update={key: getattr(new.limits, key) for key in of_downloads}
    )
    both = set(old.slots) & set(new.slots)
    changed = {slot for slot in both if old.slots[slot] != new.slots[slot]}
    update["slots"] = {
        name: new.slots[name] if name in both else slot for name, slot in old.slots.items()
    }
    waits = differing - AT_ONCE - {"telemetry", "limits", "slots"}
    waits |= {f"limits.{key}" for key in limits - OF_DOWNLOADS}
    waits |= {f"telemetry.{key}" for key in telemetry - OF_RUNNERS}
    waits |= {f"slots.{slot}" for slot in set(old.slots) ^ set(new.slots)}
    restart = set(old.slots) if of_runners else changed
    return Reload(
        config=old.model_copy(update=update),
        at_once=(
            *sorted(at_once),
            *sorted(f"limits.{key}" for key in of_downloads),
            *sorted(f"telemetry.{key}" for key in of_runners),
        ),
        restart_slots=tuple(sorted(restart)),
        waits=tuple(sorted(waits)),
    )


def _differing(old: BaseModel, new: BaseModel) -> set[str]:
    return {key for key in type(old).model_fields if getattr(old, key) != getattr(new, key)}
