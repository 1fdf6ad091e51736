"""A source that serves the Open Inference Protocol V2 over HTTP, on loopback or a Unix socket.

Invariants: every request that was read whole is answered, by this runner; what has not come whole
is left to the next runner with its connection, so that a swap drops none. All sockets stand behind
one epoll, which is what the runner's loop selects on. Connections and requests are bounded.
"""

import contextlib
import json
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import h11

from edgeloop_agent.config import OpenInferenceSource
from edgeloop_agent.endpoints import listen
from edgeloop_agent.errors import DataSetError
from edgeloop_agent.runner.handover import HandOver, Left
from edgeloop_agent.runner.http_connection import HttpConnection, Request, TooLargeError
from edgeloop_agent.runner.inference import Answer, NoAnswer
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.oip_codec import Interface, Question, RequestError
from edgeloop_agent.runner.sources import READ_EXAMPLES_MAX, Example
from edgeloop_protocol.limits import REFERENCE_MAX_CHARS

CONNECTIONS_MAX: Final = 256
IDLE_S_MIN: Final = 30.0
"""A connection may be closed for a new one, when all are taken, after so long without a request."""

EXTENSIONS: Final = ("binary_tensor_data",)
HEADER_BYTES: Final = "inference-header-content-length"
_JSON: Final = ("content-type", "application/json")
_OCTETS: Final = ("content-type", "application/octet-stream")


@dataclass(slots=True)
class _Asked:
    """A request whose examples are on their way through the model."""

    connection: HttpConnection
    name: str
    question: Question
    answers: dict[int, Answer | NoAnswer] = field(default_factory=dict)


class _Place(NamedTuple):
    asked: _Asked
    place: int


class OpenInference:
    """A source and Replying."""

    wants_to_write = False  # the epoll knows

    def __init__(
        self,
        config: OpenInferenceSource,
        model: Model,
        listener: int | None,
        hand_over: HandOver | None,
    ) -> None:
        """Raises DataSetError when it cannot listen."""
        try:
            self._listener = listen(config) if listener is None else socket.socket(fileno=listener)
        except OSError as error:
            raise DataSetError(f"cannot listen on {config.path or config.port}: {error}") from error
        self._listener.setblocking(False)
        self._hand_over = hand_over
        self._interface = Interface(model.manifest)
        self._manifest = model.manifest
        self._connections: dict[int, HttpConnection] = {}
        self._heard_at: dict[int, float] = {}
        self._ready: list[HttpConnection] = []
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._requests = 0
        for left in hand_over.take() if hand_over is not None else ():
            if left.connection is not None:
                self._ready.append(self._admit(left))

    def fileno(self) -> int:
        return self._epoll.fileno()

    def next_due(self) -> float | None:
        return 0.0 if self._ready else None

    def flush(self) -> None:
        """The epoll says which connection can be written to."""

    def read(self, now: float) -> list[Example]:
        examples: list[Example] = []
        ready, self._ready = self._ready, []
        for place, happened in self._epoll.poll(0, CONNECTIONS_MAX):
            if place == self._listener.fileno():
                self._accept(now)
            elif (connection := self._connections.get(place)) is not None:
                if happened & select.EPOLLOUT:
                    connection.flush()
                if happened & ~select.EPOLLOUT:
                    connection.receive()
                    self._heard_at[place] = now
                ready.append(connection)
        while ready:
            connection = ready.pop()
            if len(examples) >= READ_EXAMPLES_MAX:
                self._ready.append(connection)
            else:
                examples += self._ask(connection)
        return examples

    def reply(self, example: Example, answer: Answer | NoAnswer) -> None:
        assert isinstance(example.token, _Place)
        asked, place = example.token
        asked.answers[place] = answer
        if len(asked.answers) == len(asked.question.values):
            self._answer(asked)

    def close(self) -> None:
        """What is read whole is answered by now; the rest goes to the next runner."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.flush()
            left = connection.leave()
            if left is not None and self._hand_over is not None:
                self._hand_over.give(left)
            else:
                connection.close()
        self._connections = {}
        self._listener.close()

    def _accept(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while len(self._connections) < CONNECTIONS_MAX or self._close_an_idle_one(now):
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                with contextlib.suppress(OSError):  # a Unix socket has no such option
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ready.append(self._admit(Left(accepted)))
            self._epoll.modify(self._listener, 0)  # until one is closed

    def _admit(self, left: Left) -> HttpConnection:
        connection = HttpConnection(left)
        place = connection.socket.fileno()
        self._connections[place] = connection
        self._heard_at[place] = time.monotonic()
        events = select.EPOLLIN | (select.EPOLLOUT if connection.has_unsent else 0)
        self._epoll.register(place, events)
        return connection

    def _close_an_idle_one(self, now: float) -> bool:
        place = min(self._heard_at, key=self._heard_at.__getitem__)
        if now - self._heard_at[place] < IDLE_S_MIN or self._connections[place].is_answering:
            return False
        self._drop(self._connections[place])
        return True

    def _drop(self, connection: HttpConnection) -> None:
        place = connection.socket.fileno()
        if self._connections.pop(place, None) is not None:
            del self._heard_at[place]
            self._epoll.unregister(place)
            if len(self._connections) == CONNECTIONS_MAX - 1:
                self._epoll.modify(self._listener, select.EPOLLIN)
        connection.close()

    def _ask(self, connection: HttpConnection) -> list[Example]:
        """The examples of its next request; other requests are answered here."""
        while True:
            try:
                request = connection.request()
            except TooLargeError:
                self._refuse(connection, 413, "the body is too large")
                break
            except h11.RemoteProtocolError:
                connection.is_over = True
                break
            if request is None:
                break
            try:
                examples = self._route(connection, request)
            except RequestError as error:
                self._say(connection, error.status, {"error": str(error)})
            else:
                if examples:
                    return examples
        self._settle(connection)
        return []

    def _route(self, connection: HttpConnection, request: Request) -> list[Example]:
        """Empty: it is answered. Raises RequestError."""
        parts = [part for part in request.path.partition("?")[0].split("/") if part]
        if not parts or parts[0] != "v2":
            raise RequestError(404, f"no {request.path}: see /v2")
        if parts[1:2] == ["models"] and len(parts) > 2:
            return self._of_model(connection, request, parts[2], parts[3:])
        if request.method != "GET":
            raise RequestError(405, f"{request.path} is for GET")
        if len(parts) == 1:
            version = self._manifest.version
            said: dict[str, Any] | None = {
                "name": "edgeloop-agent", "version": version, "extensions": EXTENSIONS
            }  # fmt: skip
        elif parts in (["v2", "health", "live"], ["v2", "health", "ready"]):
            said = None
        else:
            raise RequestError(404, f"no {request.path}: see /v2")
        self._say(connection, 200, said)
        return []

    def _of_model(
        self, connection: HttpConnection, request: Request, name: str, rest: list[str]
    ) -> list[Example]:
        if name != self._manifest.name:
            raise RequestError(404, f"no model {name!r}; {self._manifest.name!r} is served")
        if rest[:1] == ["versions"]:
            if rest[1:2] != [self._manifest.version]:
                raise RequestError(404, f"version {self._manifest.version} is served")
            rest = rest[2:]
        if rest == ["infer"] and request.method == "POST":
            return self._infer(connection, request, name)
        if request.method != "GET" or rest not in ([], ["ready"]):
            raise RequestError(404, f"no {request.method} {request.path}")
        self._say(connection, 200, None if rest else self._interface.metadata(name))
        return []

    def _infer(self, connection: HttpConnection, request: Request, name: str) -> list[Example]:
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestError(415, "send the body as it is, not compressed")
        length = request.headers.get(HEADER_BYTES.encode())
        if length is not None and not (length.isdigit() and int(length) <= len(request.body)):
            raise RequestError(400, f"{HEADER_BYTES} is not a length within the body")
        question = self._interface.question(request.body, None if length is None else int(length))
        self._requests += 1
        asked = _Asked(connection, name, question)
        reference = f"{question.id or f'oip-{self._requests}'}"[: REFERENCE_MAX_CHARS - 8]
        one = len(question.values) == 1
        return [
            Example(
                reference if one else f"{reference}#{place}",
                values,
                begins=question.begins and place == 0,
                token=_Place(asked, place),
            )
            for place, values in enumerate(question.values)
        ]

    def _answer(self, asked: _Asked) -> None:
        answers = [asked.answers[place] for place in range(len(asked.question.values))]
        good = [one for one in answers if isinstance(one, Answer)]
        if len(good) == len(answers):
            body, head_bytes = self._interface.answer(asked.name, asked.question, good)
            headers = [_JSON] if head_bytes is None else [_OCTETS, (HEADER_BYTES, str(head_bytes))]
            asked.connection.answer(200, headers, body)
        else:
            place = next(n for n, one in enumerate(answers) if isinstance(one, NoAnswer))
            failed = answers[place]
            assert isinstance(failed, NoAnswer)
            status = 400 if failed.by_source else 500
            self._say(asked.connection, status, {"error": f"example {place}: {failed.problem}"})
        self._ready.append(asked.connection)  # it may have sent its next request already
        self._settle(asked.connection)

    def _refuse(self, connection: HttpConnection, status: int, words: str) -> None:
        self._say(connection, status, {"error": words})
        connection.is_over = True

    def _say(
        self, connection: HttpConnection, status: int, document: dict[str, Any] | None
    ) -> None:
        body = b"" if document is None else json.dumps(document, separators=(",", ":")).encode()
        connection.answer(status, [_JSON], body)

    def _settle(self, connection: HttpConnection) -> None:
        """Wait for what it needs; or let it go."""
        place = connection.socket.fileno()
        if place not in self._connections:
            return
        if connection.is_over:
            self._drop(connection)
            return
        events = select.EPOLLIN | (select.EPOLLOUT if connection.has_unsent else 0)
        if connection.is_answering:
            events &= ~select.EPOLLIN
        self._epoll.modify(place, events)
