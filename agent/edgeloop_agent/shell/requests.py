"""Requests of a person far away: is it fresh, is it new, and the answer in bounded parts.

Invariants: a request that was not asked in this connection is refused, by what its sender had heard
of us and by no clock (EL-DIAG-2); a restart or a capture is done once for an id (EL-DIAG-3); every
request that can be decoded is answered, with at most RESPONSE_PARTS_MAX messages (EL-DIAG-4).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from edgeloop_agent.core.effects import AnswerRequest
from edgeloop_agent.core.events import CaptureAsked, RestartRunnerAsked
from edgeloop_agent.shell.uplink import Uplink
from edgeloop_protocol.limits import (
    REQUESTS_REMEMBERED_MAX,
    RESPONSE_PART_MAX_CHARS,
    RESPONSE_PARTS_MAX,
)
from edgeloop_protocol.messages import Ask, Request, Response

SAMPLE_MIN_BYTES: Final = 200
"""A budget that does not hold even a small one is empty."""
ANSWER_MAX_CHARS: Final = RESPONSE_PARTS_MAX * RESPONSE_PART_MAX_CHARS

Diagnose = Callable[[Request], str]
"""The text for `logs`, `status` and `renew_certificate`. Raises OSError when it cannot be read."""


class Requests:
    def __init__(
        self,
        uplink: Uplink,
        diagnose: Diagnose,
        samples_left_bytes: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._uplink = uplink
        self._diagnose = diagnose
        self._samples_left_bytes = samples_left_bytes
        self._answers: OrderedDict[str, AnswerRequest] = OrderedDict()

    def take(self, request: Request) -> RestartRunnerAsked | CaptureAsked | None:
        """Answers what the shell can; the event is for the core, which answers it."""
        known = self._answers.get(request.id)
        if known is not None:
            self._say(known)
        elif not self._uplink.has_heard_us(request.said):
            self._refuse(request, "it was asked before this connection: ask again")
        elif request.asks in (Ask.LOGS, Ask.STATUS, Ask.RENEW_CERTIFICATE):
            self._look(request)
        elif request.asks not in (Ask.RESTART_RUNNER, Ask.CAPTURE):
            self._refuse(request, f"this agent does not understand {request.asks!r}")
        elif request.slot is None:
            self._refuse(request, "it names no slot")
        elif request.asks == Ask.RESTART_RUNNER:
            return RestartRunnerAsked(request.slot, request.id)
        elif self._samples_left_bytes() < SAMPLE_MIN_BYTES:
            self._refuse(request, "the day's bytes for samples are used up, or there are none")
        else:
            return CaptureAsked(request.slot, request.id, request.examples_max)
        return None

    def answered(self, answer: AnswerRequest) -> None:
        """By the core."""
        self._answers[answer.request] = answer
        if len(self._answers) > REQUESTS_REMEMBERED_MAX:
            self._answers.popitem(last=False)
        self._say(answer)

    def _look(self, request: Request) -> None:
        try:
            text, done = self._diagnose(request), True
        except OSError as error:
            text, done = f"cannot be read: {error}", False
        self._say(AnswerRequest(request.id, done, text))

    def _refuse(self, request: Request, why: str) -> None:
        self._say(AnswerRequest(request.id, done=False, detail=why))

    def _say(self, answer: AnswerRequest) -> None:
        texts = list(_parts(answer.detail))
        for part, text in enumerate(texts, 1):
            self._uplink.response(
                Response(
                    id=answer.request, done=answer.done, part=part, parts=len(texts), text=text
                )
            )


def _parts(text: str) -> Iterator[str]:
    """The end of what is too long: it is the newest."""
    if len(text) > ANSWER_MAX_CHARS:
        left_out = f"({len(text)} characters: only the last are shown)\n"
        text = left_out + text[len(left_out) - ANSWER_MAX_CHARS :]
    for start in range(0, max(1, len(text)), RESPONSE_PART_MAX_CHARS):
        yield text[start : start + RESPONSE_PART_MAX_CHARS]
