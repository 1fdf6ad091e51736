"""What a training run takes, hashed before it runs; its statement, written when it has published.

Invariant: `provenance.json` in the run's directory is whole or not there.
"""

import datetime
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from edgeloop_controller.core.provenance import Material, statement
from edgeloop_controller.core.retraining import Policy
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import TrainingRun
from edgeloop_controller.training.dataset import INPUT_FILE, TRAIN_FILE
from edgeloop_protocol.manifest import Manifest

FILE: Final = "provenance.json"


def materials_of(run: TrainingRun, policy: Policy, parent: Manifest) -> list[Material]:
    """The script, what it is given, and the version that it starts from. Raises OSError."""
    directory = Path(run.directory)
    files = {"script": Path(policy.script)}
    files |= {name: directory / name for name in (INPUT_FILE, TRAIN_FILE)}
    files |= {f"inputs/{name}": Path(path) for name, path in sorted(policy.inputs.items())}
    hashed = [Material(name, _sha256(path)) for name, path in files.items() if path.is_file()]
    return [*hashed, Material(f"{parent.name}@{parent.version}/manifest", parent.digest())]


def write_statement(
    run: TrainingRun, policy: Policy, taken: list[Material], published: Manifest, now: float
) -> None:
    """Raises OSError."""
    name = f"{published.name}@{published.version}"
    document = statement(
        [
            Material(f"{name}/artifact", published.artifact.digest),
            Material(f"{name}/manifest", published.digest()),
        ],
        taken,
        {
            "policy": policy.name,
            "model": policy.model,
            "slot": policy.slot,
            "timeout_s": policy.timeout_s,
            "memory_max_bytes": policy.memory_max_bytes,
        },
        {
            "edgeloop-controller": version("edgeloop-controller"),
            "python": platform.python_version(),
        },
        run.id,
        _rfc3339(run.started_at if run.started_at is not None else now),
        _rfc3339(now),
    )
    path = Path(run.directory) / FILE
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(document, indent=2), encoding="utf-8")
    aside.replace(path)


def read_statement(run: TrainingRun) -> dict[str, Any]:
    """Raises NotFoundError for a run that published nothing, or before there were statements."""
    try:
        document: dict[str, Any] = json.loads((Path(run.directory) / FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"run {run.id} has no statement of provenance",
            hint="a run has one once its candidate is published ([retraining] provenance)",
        ) from error
    return document


def _rfc3339(seconds: float) -> str:
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
