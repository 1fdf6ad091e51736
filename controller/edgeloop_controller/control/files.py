"""What the files under git may say of a fleet: `DIR/**/*.toml`, joined (docs/adr/0025).

Invariants: unknown keys are errors; what has a name stands in one file only; every error
names the file, the key and the mend.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms
from edgeloop_controller.errors import SelectorError
from edgeloop_protocol.config import Config, load_config
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.messages import Name

ALL: Final = "all"


class DeviceFile(Config):
    labels: dict[str, str] = Field(default_factory=dict, description="set at the controller")
    quarantine: str | None = Field(
        default=None, description='why it is in quarantine; "": it is not; left out: not compared'
    )


class FleetFile(Config):
    """Devices under a name, for the rollouts of the files."""

    selector: str = Field(min_length=1, max_length=2000, description="which devices are of it")


class RolloutFile(Config):
    version: str = Field(pattern=r"^[^@/]+@[^@/]+$", description="NAME@VERSION")
    fleet: Name | None = Field(default=None, description="one of [fleets]; None: all devices")
    selector: str = Field(default=ALL, description="of the fleet, those devices")
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

    fleets: dict[Name, FleetFile] = Field(default_factory=dict)
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
    fleets: dict[str, FleetFile] = {}
    devices: dict[str, DeviceFile] = {}
    rollouts: dict[str, RolloutFile] = {}
    policies: dict[str, PolicyTerms] = {}
    origin: dict[str, Path] = {}
    for path, file in files:
        for key in _names(file):
            if key in origin:
                raise ConfigError(f"{path}: {key} stands in {origin[key]} too: keep one of them")
            origin[key] = path
        fleets |= file.fleets
        devices |= file.devices
        rollouts |= file.rollouts
        policies |= file.policies
    _check_selectors(fleets, origin)
    rollouts = {
        name: _within_fleet(rollout, fleets, f"{origin[f'rollouts.{name}']}: rollouts.{name}")
        for name, rollout in rollouts.items()
    }
    targets: dict[tuple[str, str], str] = {}
    for name, rollout in rollouts.items():
        other = targets.setdefault((rollout.slot, rollout.selector), name)
        if other != name:
            raise ConfigError(
                f"{origin[f'rollouts.{name}']}: rollouts.{name} has the slot and the selector of "
                f"{other}, and they would replace each other for ever: keep one of them"
            )
    return ControlFile(fleets=fleets, devices=devices, rollouts=rollouts, policies=policies)


def _check_selectors(fleets: Mapping[str, FleetFile], origin: Mapping[str, Path]) -> None:
    for name, fleet in fleets.items():
        try:
            selectors.parse(fleet.selector)
        except SelectorError as error:
            where = f"{origin[f'fleets.{name}']}: fleets.{name}.selector"
            raise ConfigError(f"{where}: {error}: {error.hint}") from error


def _within_fleet(rollout: RolloutFile, fleets: Mapping[str, FleetFile], where: str) -> RolloutFile:
    """With the selector that the controller is given: the fleet's, and the rollout's own."""
    if rollout.fleet is None:
        return rollout
    if rollout.fleet not in fleets:
        known = ", ".join(sorted(fleets)) or "none"
        raise ConfigError(f"{where}: no fleet {rollout.fleet!r} in these files; there: {known}")
    parts = (fleets[rollout.fleet].selector, rollout.selector)
    narrowed = ", ".join(part for part in parts if part.strip() != ALL)
    return rollout.model_copy(update={"selector": narrowed or ALL})


def _names(file: ControlFile) -> list[str]:
    return [
        *(f"fleets.{name}" for name in file.fleets),
        *(f"devices.{name}" for name in file.devices),
        *(f"rollouts.{name}" for name in file.rollouts),
        *(f"policies.{name}" for name in file.policies),
    ]
