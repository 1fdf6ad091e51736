"""Where answers go: nowhere, a rotated file of JSON lines, or the source's socket.

Invariant: a sink that cannot take an answer drops and counts it; it never stops inference.
"""

import json
import logging
from typing import Any, Final, Protocol

from edgeloop_agent.config import JsonlSink
from edgeloop_agent.runner.sources import SocketFeed

logger = logging.getLogger(__name__)

ROTATED_SUFFIX: Final = ".1"


class Sink(Protocol):
    def answer(self, answer: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class DiscardingSink:
    def answer(self, answer: dict[str, Any]) -> None:
        """Nobody asked for it."""

    def close(self) -> None:
        """Nothing is open."""


class AnsweringSink:
    def __init__(self, feed: SocketFeed) -> None:
        self._feed = feed

    def answer(self, answer: dict[str, Any]) -> None:
        self._feed.send(_line(answer))

    def close(self) -> None:
        """The feed closes its own socket."""


class FileSink:
    """At most two files of `max_bytes`."""

    def __init__(self, config: JsonlSink) -> None:
        self._path = config.path
        self._max_bytes = config.max_bytes
        self._failed = False
        self.dropped = 0

    def answer(self, answer: dict[str, Any]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_line(answer))
                full = file.tell() >= self._max_bytes
            if full:
                self._path.replace(self._path.with_name(self._path.name + ROTATED_SUFFIX))
            self._failed = False
        except OSError as error:
            self.dropped += 1
            if not self._failed:
                logger.warning("cannot write answers to %s: %s", self._path, error)
            self._failed = True

    def close(self) -> None:
        """The file is opened for each answer, so that it can be moved away at any time."""


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
