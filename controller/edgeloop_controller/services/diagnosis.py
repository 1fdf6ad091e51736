"""A device is asked for its logs, its status or a new runner, and somebody waits for the answer.

Invariants: an answer counts only if it comes from the device that was asked, whole; a request is
said again under its own id while somebody waits, each time with what was last heard of the device,
since it acts on no request from before its connection (EL-DIAG-2); at most WAITING_MAX wait, and
nothing is remembered of those that do not wait any more.
"""

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from edgeloop_controller.errors import ConflictError, NoAnswerError
from edgeloop_controller.services.desired import Outbound
from edgeloop_controller.store import devices
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.messages import Ask, Request, Response, Said, encode
from edgeloop_protocol.topics import Down, down_topic

WAITING_MAX: Final = 8
"""Each holds one of the API's threads."""
SAID_AGAIN_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class Answer:
    done: bool
    text: str


@dataclass
class _Waiting:
    device_id: str
    parts: dict[int, Response] = field(default_factory=dict)
    whole: threading.Event = field(default_factory=threading.Event)

    def take(self, response: Response) -> None:
        self.parts[response.part] = response
        if len(self.parts) == response.parts:
            self.whole.set()

    def answer(self) -> Answer:
        parts = [self.parts[part] for part in sorted(self.parts)]
        return Answer(parts[0].done, "".join(part.text for part in parts))


class Diagnosis:
    """`ask` blocks its caller; `answered` is called by ingest."""

    def __init__(self, database: Database, outbound: Outbound) -> None:
        self._database = database
        self._outbound = outbound
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}

    def ask(
        self,
        device_id: str,
        asks: Ask,
        slot: str | None,
        lines_max: int,
        timeout_s: float,
        examples_max: int = 20,
    ) -> Answer:
        """Raises NotFoundError, ConflictError when too many wait, NoAnswerError."""
        request = Request(
            id=secrets.token_hex(8),
            asks=asks.value,
            said=self._said(device_id),
            slot=slot,
            lines_max=lines_max,
            examples_max=examples_max,
        )
        waiting = _Waiting(device_id)
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                raise ConflictError(
                    f"{WAITING_MAX} requests wait for their devices already", hint="try again"
                )
            self._waiting[request.id] = waiting
        try:
            self._say_until_answered(request, waiting, timeout_s)
        finally:
            with self._lock:
                del self._waiting[request.id]
        return waiting.answer()

    def answered(self, device_id: str, response: Response) -> None:
        with self._lock:
            waiting = self._waiting.get(response.id)
            if waiting is not None and waiting.device_id == device_id:
                waiting.take(response)

    def _say_until_answered(self, request: Request, waiting: _Waiting, timeout_s: float) -> None:
        device_id, deadline = waiting.device_id, time.monotonic() + timeout_s
        while True:
            self._outbound.publish(down_topic(device_id, Down.REQUEST), encode(request))
            left_s = deadline - time.monotonic()
            if waiting.whole.wait(max(0.0, min(SAID_AGAIN_EVERY_S, left_s))):
                return
            if left_s <= SAID_AGAIN_EVERY_S:
                raise NoAnswerError(
                    f"device {device_id} did not answer within {timeout_s:g} s",
                    hint="`edgeloop device show` says when it was last heard; an agent older than "
                    "this controller may not know requests",
                )
            request = request.model_copy(update={"said": self._said(device_id)})

    def _said(self, device_id: str) -> Said:
        with self._database.reading() as session:
            device = devices.require(session, device_id)
            return Said(epoch=device.epoch, sequence=device.state_sequence)
