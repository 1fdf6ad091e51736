"""MLflow's webhooks as they come in: verified, then taken as a hint of when to look.

Invariants: nothing is done, and nothing of the body is believed, before its signature is checked;
a delivery that comes again changes nothing.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_controller.core.mlflow_webhook import Deliveries, moved_alias, verify
from edgeloop_controller.errors import NotFoundError, RefusedInputError, StartError
from edgeloop_controller.mlflow_config import MlflowConfig
from edgeloop_controller.services.mlflow_following import Hint, MlflowFollowing
from edgeloop_protocol.clock import Clock

SECRETS_MAX: Final = 4
SECRET_MIN_BYTES: Final = 16
SECRET_FILE_MAX_BYTES: Final = 4096
SECRET_HINT: Final = "make one: `openssl rand -hex 32 > FILE`, and create MLflow's webhook with it"  # noqa: S105


@dataclass(frozen=True)
class Taken:
    """`follows` are those that look at once."""

    delivery: str
    seen_before: bool
    follows: tuple[str, ...]


class MlflowWebhooks:
    """Called from any thread."""

    def __init__(self, config: MlflowConfig, following: MlflowFollowing, clock: Clock) -> None:
        self._secret_file = config.webhook_secret_file
        self._following = following
        self._clock = clock
        self._lock = threading.Lock()
        self._deliveries = Deliveries()
        self.last_at: float | None = None
        """When the last one came that was MLflow's."""

    def open(self) -> None:
        """Raises StartError for a secret that cannot be used."""
        if self._secret_file is None:
            return
        try:
            read_secrets(self._secret_file)
        except RefusedInputError as error:
            raise StartError(f"[mlflow] {error}", error.hint) from error

    def require_taken(self) -> Path:
        """The secrets' file. Raises NotFoundError where no webhook is taken."""
        if self._secret_file is None:
            raise NotFoundError(
                "no webhook of MLflow is taken here",
                hint="set [mlflow] webhook_secret_file in the controller's configuration",
            )
        return self._secret_file

    def verified(self, headers: Mapping[str, str], body: bytes) -> str:
        """The delivery's id. Raises SignatureError, NotFoundError or RefusedInputError."""
        secrets = read_secrets(self.require_taken())
        return verify(headers, body, secrets, self._clock.wall())

    def take(self, delivery: str, body: bytes, address: str) -> Taken:
        """Of a body that is `verified`."""
        now = self._clock.wall()
        with self._lock:
            is_new = self._deliveries.is_new(delivery, now)
            self.last_at = now
        moved = moved_alias(body) if is_new else None
        follows: list[str] = []
        if moved is not None:
            follows = self._following.take_hint(moved, Hint(delivery, address))
        return Taken(delivery, not is_new, tuple(follows))


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """A secret a line; empty lines and those that begin with `#` are none. Raises
    RefusedInputError, which does not repeat what it read."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_MAX_BYTES + 1)
    except OSError as error:
        reason = f"cannot read webhook_secret_file {path}: {error.strerror}"
        raise RefusedInputError(reason, SECRET_HINT) from error
    if len(content) > SECRET_FILE_MAX_BYTES:
        raise RefusedInputError(
            f"webhook_secret_file {path} is over {SECRET_FILE_MAX_BYTES} bytes", SECRET_HINT
        )
    lines = [line.strip() for line in content.splitlines()]
    secrets = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not 1 <= len(secrets) <= SECRETS_MAX:
        raise RefusedInputError(
            f"webhook_secret_file {path} has {len(secrets)} secrets, not 1 to {SECRETS_MAX}",
            SECRET_HINT,
        )
    if min(map(len, secrets)) < SECRET_MIN_BYTES:
        raise RefusedInputError(
            f"webhook_secret_file {path} has a secret of less than {SECRET_MIN_BYTES} bytes",
            SECRET_HINT,
        )
    return secrets
