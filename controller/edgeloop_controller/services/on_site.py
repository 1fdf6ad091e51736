"""Work on the controller's database by whoever may write it, without its API: the first token.

Invariants: it is in the audit log, as `on-site:` and the name of the system's user; it may be done
beside a running controller.
"""

import getpass
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import DatabaseError

from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.errors import StartError
from edgeloop_controller.services.people import People
from edgeloop_controller.store import audit
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock, SystemClock

ACTOR_PREFIX: Final = "on-site:"


@dataclass(frozen=True)
class OnSite:
    people: People
    clock: Clock
    actor: str


@contextmanager
def on_site(config: ControllerConfig, method: str, path: str, subject: str) -> Iterator[OnSite]:
    """`method`, `path` and `subject` as the audit log has them. Raises StartError for a database
    that cannot be opened."""
    clock = SystemClock()
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(config.database)
    except (OSError, DatabaseError) as error:
        raise StartError(
            f"cannot open the controller's database {config.database}: {error}",
            hint="run this as the user that runs the controller, with its configuration",
        ) from error
    actor = ACTOR_PREFIX + getpass.getuser()
    request = audit.Request(
        id=secrets.token_hex(8),
        at=clock.wall(),
        actor=actor,
        authenticated=True,
        address="",
        forwarded_for="",
        method=method,
        path=path,
        subject=subject,
    )
    try:
        with audit.opened(request):
            yield OnSite(People(database, clock, required=True), clock, actor)
    finally:
        database.close()
