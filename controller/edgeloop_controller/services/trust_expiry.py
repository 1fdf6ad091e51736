"""Warns of what people signed and that expires: devices would install nothing any more.

Invariant: once for each version of a role, over restarts too.
"""

import logging
from datetime import datetime
from typing import Any

from edgeloop_controller.store import events
from edgeloop_controller.store.engine import Database
from edgeloop_controller.trust.metadata import Document, Standing
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)


class ExpiryWatch:
    def __init__(self, database: Database, clock: Clock, warn_s: float) -> None:
        self._database = database
        self._clock = clock
        self._warn_s = warn_s
        self._said: set[tuple[str, str, int]] = set()

    def warn(self, standing: Standing, now: datetime) -> None:
        people: list[Document[Any]] = [standing.root, *standing.roles.values()]
        for document in people:
            left_s = (document.expires - now).total_seconds()
            if left_s <= self._warn_s:
                self._warn(document, "trust.expired" if left_s <= 0 else "trust.expires_soon")

    def _warn(self, document: Document[Any], kind: str) -> None:
        key = kind, document.role, document.version
        if key in self._said:
            return
        data = {"version": document.version, "expires": document.expires.isoformat()}
        with self._database.writing() as session:
            last = events.newest_of(session, kind, document.role)
            if last is None or last.data != data:
                events.add(session, self._clock.wall(), kind, document.role, data)
                logger.warning(
                    "%s: %s, at %s: `edgeloop trust renew %s --key FILE`",
                    kind,
                    document.role,
                    document.expires.isoformat(),
                    document.role,
                )
        self._said.add(key)
