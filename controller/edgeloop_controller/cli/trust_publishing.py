"""What publishing does with `--sign`. Imports nothing that signs before it is asked to."""

from pathlib import Path
from typing import Any

from edgeloop_controller.cli.trust_options import Manner


def sign_published(name: str, version: str, artifact: Path | None, manner: Manner) -> Any:
    """What the controller made of the signature; ends the command where there is none."""
    from edgeloop_controller.cli.trust_releases import Terms, sign_version

    return sign_version(name, version, Terms(), artifact, manner)
