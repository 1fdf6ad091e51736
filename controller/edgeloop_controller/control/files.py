"""What the files under git may say of a fleet: `DIR/**/*.toml`, joined (docs/adr/0025).

Invariants: unknown keys are errors; what has a name stands in one file only; every error
names the file, the key and the mend.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms
from edgeloop_protocol.config import Config, load_config
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.messages import Name


class DeviceFile(Config):
    labels: dict[str, str] = Field(default_factory=dict, description="set at the controller")
    quarantine: str | None = Field(
        default=None, description='why it is in quarantine; "": it is not; left out: not compared'
    )


class RolloutFile(Config):
    version: str = Field(pattern=r"^[^@/]+@[^@/]+$", description="NAME@VERSION")
    selector: str = "all"
    waves: tuple[str, ...] = Field(default=("1", "5%", "25%", "100%"), min_length=1, max_length=32)
    slot: Name = "main"
    if_busy: Literal["refuse", "queue", "preempt"] = "refuse"
    allow_empty: bool = False
    terms: RolloutTerms = RolloutTerms()

    @field_validator("terms", mode="before")
    @classmethod
    def _times_are_seconds(cls, terms: Any) -> Any:
        schedule = terms.get("schedule") if isinstance(terms, dict) else None
        if not isinstance(schedule, dict):
            return terms
        at = schedule.get("starts_at")
        if not isinstance(at, datetime):
            return terms
        if at.tzinfo is None:
            raise ValueError(
                f"schedule.starts_at: {at.isoformat()} has no offset: write {at.isoformat()}Z"
            )
        return {**terms, "schedule": {**schedule, "starts_at": at.timestamp()}}


class ControlFile(Config):
    """Each file may hold any part; together they are what is wanted."""

    devices: dict[str, DeviceFile] = Field(default_factory=dict)
    rollouts: dict[str, RolloutFile] = Field(default_factory=dict)
    policies: dict[Name, PolicyTerms] = Field(
        default_factory=dict, description="script and inputs are below the controller's scripts_dir"
    )


def load_directory(directory: Path) -> ControlFile:
    """Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError(f"no directory {directory}: give one that holds TOML files with -f")
    paths = sorted(directory.rglob("*.toml"))
    if not paths:
        raise ConfigError(f"no TOML file in {directory}: `edgeloop export {directory}` writes some")
    return _joined((path, load_config(ControlFile, path, environment={})) for path in paths)


def _joined(files: Iterable[tuple[Path, ControlFile]]) -> ControlFile:
    devices: dict[str, DeviceFile] = {}
    rollouts: dict[str, RolloutFile] = {}
    policies: dict[str, PolicyTerms] = {}
    origin: dict[str, Path] = {}
    for path, file in files:
        for key in _names(file):
            if key in origin:
                raise ConfigError(f"{path}: {key} stands in {origin[key]} too: keep one of them")
            origin[key] = path
        devices |= file.devices
        rollouts |= file.rollouts
        policies |= file.policies
    targets: dict[tuple[str, str], str] = {}
    for name, rollout in rollouts.items():
        other = targets.setdefault((rollout.slot, rollout.selector), name)
        if other != name:
            raise ConfigError(
                f"{origin[f'rollouts.{name}']}: rollouts.{name} has the slot and the selector of "
                f"{other}, and they would replace each other for ever: keep one of them"
            )
    return ControlFile(devices=devices, rollouts=rollouts, policies=policies)


def _names(file: ControlFile) -> list[str]:
    return [
        *(f"devices.{name}" for name in file.devices),
        *(f"rollouts.{name}" for name in file.rollouts),
        *(f"policies.{name}" for name in file.policies),
    ]
