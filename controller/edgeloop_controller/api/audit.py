"""ASGI middleware: every request that may change something gets an entry of the audit log.

Invariants: the one place that opens entries; outermost, so that refusals by limits and validation
are recorded too. An entry is committed with the request's first change (store.audit), or else
before it is answered; what cannot be recorded is answered 503. Refusals are recorded up to
REFUSALS_A_MINUTE_MAX a minute, and the rest counted in the next entry: who is refused cannot fill
the disk. Who asks is what the sender says, until the guard inside knows better (api.guard).
"""

import json
import logging
import re
import secrets
import threading
from dataclasses import dataclass, field
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeloop_controller.api.errors import error_response
from edgeloop_controller.api.request_essence import VALUE_MAX_CHARS, Body, storable
from edgeloop_controller.store import audit
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

ACTOR_HEADER: Final = "x-edgeloop-actor"
ACTOR_MAX_CHARS: Final = 128
REFUSALS_A_MINUTE_MAX: Final = 600
ANSWER_READ_MAX_BYTES: Final = 64 * 1024

CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
PREFIX: Final = "/v1/"

# Paths of the API → what their entries are about; any other: the collection's name.
SUBJECTS: Final = (
    (re.compile(r"/v1/models/([^/]+)/versions/([^/]+)"), "version:{}@{}"),
    (re.compile(r"/v1/models/([^/]+)"), "model:{}"),
    (re.compile(r"/v1/devices/([^/]+)"), "device:{}"),
    (re.compile(r"/v1/rollouts/([^/]+)"), "rollout:{}"),
    (re.compile(r"/v1/challengers/([^/]+)"), "challenger:{}"),
    (re.compile(r"/v1/retraining/policies/([^/]+)"), "policy:{}"),
    (re.compile(r"/v1/tokens/([^/]+)"), "token:{}"),
    (re.compile(r"/v1/([^/]+)"), "{}"),
)
_ACTOR: Final = re.compile(rf"[!-~][ -~]{{0,{ACTOR_MAX_CHARS - 1}}}")


class Audit:
    def __init__(self, app: ASGIApp, database: Database, clock: Clock) -> None:
        self._app = app
        self._database = database
        self._clock = clock
        self._refusals = _Refusals(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in CHANGING:
            await self._app(scope, receive, send)
            return
        if not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        body = Body(Headers(scope=scope))
        request = self._request(scope, body)
        answer = _Answer(self, request, send)
        if _ACTOR.fullmatch(request.actor) is None:
            request.actor = ascii(request.actor)[:ACTOR_MAX_CHARS]
            refused = error_response(
                422,
                "refused_input",
                f"the header {ACTOR_HEADER} is no name: {request.actor}",
                f"1 to {ACTOR_MAX_CHARS} printable ASCII characters; the CLI sends EDGELOOP_ACTOR",
            )
            await refused(scope, receive, answer.send)
            return
        try:
            with audit.opened(request):
                await self._app(scope, body.read_by(receive), answer.send)
        except Exception as error:
            await self.record(request, "failed", 500, f"{type(error).__name__}: {error}")
            raise
        finally:
            if not request.recorded:
                self._refusals.give_back(request.passed_over)

    def _request(self, scope: Scope, body: Body) -> audit.Request:
        headers = Headers(scope=scope)
        client = scope.get("client")
        return _Audited(
            body=body,
            refusals=self._refusals,
            id=secrets.token_hex(8),
            at=self._clock.wall(),
            actor=headers.get(ACTOR_HEADER, audit.NOBODY_NAMED),
            authenticated=False,
            address=client[0] if client else "",
            forwarded_for=headers.get("x-forwarded-for", "")[:VALUE_MAX_CHARS],
            method=scope["method"],
            path=storable(scope["path"]),
            subject=subject_of(storable(scope["path"])),
        )

    async def record(
        self, request: audit.Request, outcome: str, status: int, detail: str = ""
    ) -> bool:
        """False: it cannot be written now."""
        try:
            await run_in_threadpool(self._write, request, outcome, status, detail)
        except Exception:
            logger.exception("cannot record %s %s", request.method, request.path)
            return False
        return True

    def _write(self, request: audit.Request, outcome: str, status: int, detail: str) -> None:
        if outcome == "refused" and not request.recorded and not self._refusals.may():
            return
        if not request.recorded:
            request.created = ""  # what was begun and rolled back was not made
        with audit.opened(None), self._database.writing() as session:
            audit.add(session, request, outcome, status, detail)
        request.recorded = True


class _Answer:
    """Holds an answer back until what is answered is recorded."""

    def __init__(self, recorder: Audit, request: audit.Request, send: Send) -> None:
        self._recorder = recorder
        self._request = request
        self._send = send
        self._held: list[Message] = []
        self._replaced = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._held.append(message)
                return
            if not self._request.recorded and not await self._record("done", message["status"]):
                return
        elif self._held:
            self._held.append(message)
            if message.get("more_body") and self._held_bytes() < ANSWER_READ_MAX_BYTES:
                return
            await self._refusal()
            return
        await self._send(message)

    async def _refusal(self) -> None:
        """What was held is the whole answer, or as much as a refusal says."""
        held, self._held = self._held, []
        status = held[0]["status"]
        outcome = "refused" if status < 500 else "failed"
        content = b"".join(message.get("body", b"") for message in held[1:])
        if await self._record(outcome, status, _words(content)):
            for message in held:
                await self._send(message)

    async def _record(self, outcome: str, status: int, detail: str = "") -> bool:
        if await self._recorder.record(self._request, outcome, status, detail):
            return True
        self._replaced = True
        unrecorded = error_response(
            503,
            "database_unavailable",
            "the request cannot be recorded in the audit log now",
            "look whether it was done before you try again; the controller's log says why",
        )
        await unrecorded({"type": "http"}, _nothing, self._send)
        return False

    def _held_bytes(self) -> int:
        return sum(len(message.get("body", b"")) for message in self._held)


@dataclass
class _Audited(audit.Request):
    body: Body = field(kw_only=True)
    refusals: "_Refusals" = field(kw_only=True)

    def understood(self) -> None:
        kept = 0 if self.recorded else self.passed_over
        self.passed_over = kept + self.refusals.take()
        self.essence = self.body.essence() | self.noted


class _Refusals:
    """How many were recorded in this minute, and how many were not since the last entry."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = 0
        self._recorded = 0
        self._passed_over = 0

    def may(self) -> bool:
        with self._lock:
            minute = int(self._clock.monotonic() // 60)
            if minute != self._minute:
                self._minute, self._recorded = minute, 0
            self._recorded += 1
            if self._recorded > REFUSALS_A_MINUTE_MAX:
                self._passed_over += 1
                return False
            return True

    def take(self) -> int:
        with self._lock:
            passed_over, self._passed_over = self._passed_over, 0
            return passed_over

    def give_back(self, passed_over: int) -> None:
        with self._lock:
            self._passed_over += passed_over


def subject_of(path: str) -> str:
    for pattern, subject in SUBJECTS:
        found = pattern.match(path)
        if found is not None:
            return subject.format(*found.groups())
    return path


def _words(content: bytes) -> str:
    """`conflict: rollout 3 is …`, of an answer in the API's one shape for errors."""
    try:
        error = json.loads(content)["error"]
        return storable(f"{error['code']}: {error['message']}")
    except (ValueError, KeyError, TypeError):
        return ""


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
