"""Retraining policies: the files `<policies_dir>/*.toml`.

Invariants: a bad file never hides a good one; a file is read again when asked, so a change counts
without a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeloop_controller.core.retraining import Policy
from edgeloop_controller.errors import NotFoundError
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError


@dataclass(frozen=True)
class Policies:
    """What the directory holds now; `errors` maps a file to what is wrong with it."""

    directory: Path | None
    found: Mapping[str, Policy]
    errors: Mapping[Path, str]

    def require(self, name: str) -> Policy:
        """Raises NotFoundError."""
        if name in self.found:
            return self.found[name]
        if self.directory is None:
            hint = "set [retraining] policies_dir in the controller's configuration"
        else:
            known = ", ".join(sorted(self.found)) or "none"
            hint = f"{self.directory} has {known}; `edgeloop retrain policies` shows bad files too"
        raise NotFoundError(f"no retraining policy {name!r}", hint=hint)


def load_policies(directory: Path | None) -> Policies:
    """Never raises for what a file holds."""
    found: dict[str, Policy] = {}
    errors: dict[Path, str] = {}
    for path in sorted(directory.glob("*.toml")) if directory is not None else ():
        try:
            policy = load_config(Policy, path, environment={})
        except ConfigError as error:
            errors[path] = str(error)
            continue
        if policy.name in found:
            errors[path] = f"{path}: name: another file has a policy {policy.name!r}; rename one"
        elif not Path(policy.script).is_file():
            errors[path] = (
                f"{path}: script: no file {policy.script} (relative to the controller's "
                "working directory)"
            )
        else:
            found[policy.name] = policy
    if directory is not None and not directory.is_dir():
        errors[directory] = f"no policies directory {directory}: make it or mend policies_dir"
    return Policies(directory, found, errors)
