"""Webhooks as the database knows them: what is to be delivered next, and what came of it.

Invariants: a cursor moves only after what it passes is settled (delivered, or given up and said so
in the event log), so a kill at any moment delivers something twice and never nothing; the whole
queue is the event log: nothing is held here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeloop_controller.config import WebhookConfig, WebhooksConfig
from edgeloop_controller.core.webhook_policy import Bounds
from edgeloop_controller.errors import RefusedInputError, StartError
from edgeloop_controller.services.cloud_events import (
    SECRET_FILE_MAX_BYTES,
    SECRET_HINT,
    LoggedEvent,
    parse_secrets,
)
from edgeloop_controller.store import events
from edgeloop_controller.store import webhooks as cursors
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Event, WebhookCursor
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import TEXT_MAX_CHARS

PAGE_EVENTS: Final = 20
PASSED_OVER_SAVED_EVERY: Final = 1000
"""Events of other kinds are passed over without writing, up to so many."""


@dataclass(frozen=True)
class Due:
    """`attempts` of the first of `events` failed before."""

    events: tuple[LoggedEvent, ...]
    attempts: int


@dataclass(frozen=True)
class WebhookStatus:
    name: str
    receiver: str
    """Scheme and host of the URL: its path is often a secret. Empty: not configured any more."""
    kinds: tuple[str, ...]
    behind: int
    cursor: WebhookCursor


class Webhooks:
    """Each hook's events are taken and settled by one task."""

    def __init__(self, database: Database, config: WebhooksConfig, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._looked: dict[str, int] = {}
        self.source = config.source
        self.hooks: Mapping[str, WebhookConfig] = config.hooks

    def open(self) -> None:
        """Raises StartError for a secret that cannot be used."""
        for name, hook in self.hooks.items():
            try:
                read_secrets(hook.secret_file)
            except RefusedInputError as error:
                raise StartError(f"[webhooks.hooks.{name}] {error}", error.hint) from error
        if self.hooks:
            with self._database.writing() as session:
                cursors.make_missing(session, self.hooks)

    def bounds(self, name: str) -> Bounds:
        hook = self.hooks[name]
        return Bounds(hook.attempts_max, hook.give_up_after_s)

    def due(self, name: str) -> Due:
        """The next PAGE_EVENTS at most, in order; none: it is up to date."""
        kinds = self.hooks[name].kinds
        with self._database.reading() as session:
            cursor = cursors.find(session, name)
            assert cursor is not None  # `open` made it
            looked_from = max(cursor.through, self._looked.get(name, 0))
            looked = cursors.look_on(session, looked_from, kinds, PAGE_EVENTS)
            found = tuple(_logged(row) for row in looked.events)
        if not found:
            self._looked[name] = looked.through
            if looked.through - cursor.through >= PASSED_OVER_SAVED_EVERY:
                self._pass_over(name, looked.through)
        return Due(found, cursor.attempts)

    def delivered(self, name: str, event: LoggedEvent) -> None:
        with self._database.writing() as session:
            cursor = self._settle(cursors.find(session, name), event)
            cursor.delivered += 1
            cursor.delivered_at = self._clock.wall()
            cursor.failing_since, cursor.error = None, ""

    def failed(self, name: str, error: str) -> None:
        """An attempt at the next event; there will be another."""
        with self._database.writing() as session:
            cursor = cursors.find(session, name)
            assert cursor is not None
            cursor.attempts += 1
            self._note(cursor, error)

    def gave_up(self, name: str, event: LoggedEvent, attempts: int, error: str) -> None:
        """The next event is passed by, and the event log says so."""
        with self._database.writing() as session:
            cursor = self._settle(cursors.find(session, name), event)
            cursor.given_up += 1
            self._note(cursor, error)
            data = {
                "event": event.id,
                "kind": event.kind,
                "subject": event.subject,
                "attempts": attempts,
                "error": error[:TEXT_MAX_CHARS],
            }
            events.add(session, self._clock.wall(), "webhook.gave_up", name, data)

    def status(self) -> list[WebhookStatus]:
        with self._database.reading() as session:
            return [
                WebhookStatus(
                    name=cursor.name,
                    receiver=_receiver(hook.url) if hook else "",
                    kinds=hook.kinds if hook else (),
                    behind=cursors.behind(session, cursor.through, hook.kinds) if hook else 0,
                    cursor=cursor,
                )
                for cursor in cursors.every(session)
                for hook in [self.hooks.get(cursor.name)]
            ]

    def _pass_over(self, name: str, through: int) -> None:
        with self._database.writing() as session:
            cursor = cursors.find(session, name)
            assert cursor is not None
            cursor.through = through

    def _settle(self, cursor: WebhookCursor | None, event: LoggedEvent) -> WebhookCursor:
        assert cursor is not None
        cursor.through, cursor.attempts = event.id, 0
        return cursor

    def _note(self, cursor: WebhookCursor, error: str) -> None:
        cursor.error = error[:TEXT_MAX_CHARS]
        if cursor.failing_since is None:
            cursor.failing_since = self._clock.wall()


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """Raises RefusedInputError; read at each attempt, so that a rotation needs no restart."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_MAX_BYTES + 1)
    except OSError as error:
        reason = f"cannot read secret_file {path}: {error.strerror}"
        raise RefusedInputError(reason, SECRET_HINT) from error
    if len(content) > SECRET_FILE_MAX_BYTES:
        raise RefusedInputError(f"secret_file {path} is over {SECRET_FILE_MAX_BYTES} bytes")
    try:
        return parse_secrets(content.decode("ascii"))
    except UnicodeDecodeError as error:
        raise RefusedInputError(f"secret_file {path} is not ASCII", SECRET_HINT) from error
    except RefusedInputError as error:
        raise RefusedInputError(f"secret_file {path}: {error}", error.hint) from error


def _logged(row: Event) -> LoggedEvent:
    return LoggedEvent(row.id, row.at, row.kind, row.subject, row.data, row.device_id)


def _receiver(url: str) -> str:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
