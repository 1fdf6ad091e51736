"""A device is asked from the controller: by the API, by the command line, and who may answer."""

import threading
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeloop_controller.api.app import create_app
from edgeloop_controller.errors import ConflictError, NoAnswerError, NotFoundError
from edgeloop_controller.services import diagnosis
from edgeloop_controller.services.inbox import Inbound
from edgeloop_protocol.limits import CAPTURE_EXAMPLES_MAX
from edgeloop_protocol.messages import Ask, Request, Response, decode, encode
from edgeloop_protocol.topics import Down, Up, parse_down_topic, up_topic


def response(request: Request, device_id: str = "d1", text: str = "a log", **more: Any) -> Inbound:
    message = Response(id=request.id, done=more.pop("done", True), text=text, **more)
    return Inbound(up_topic(device_id, Up.RESPONSE), encode(message))


class Answering:
    """Stands between the controller and its broker: answers each request by `answers`."""

    def __init__(self, controller: Any, answers: Any) -> None:
        self.requests: list[Request] = []
        publish = controller.broker.publish

        def answering(topic: str, payload: bytes) -> bool:
            if parse_down_topic(topic).kind is Down.REQUEST:
                request = decode(Request, payload)
                self.requests.append(request)
                messages = answers(request, len(self.requests))
                if messages:
                    threading.Thread(target=controller.takes, args=messages).start()
                return True
            return bool(publish(topic, payload))

        controller.broker.publish = answering


@pytest.fixture
def api(controller: Any) -> Any:
    with TestClient(
        create_app(controller.parts.services), base_url="http://localhost/v1"
    ) as client:
        yield client


def test_an_answer_in_parts_is_put_together(controller: Any, make_device: Any, api: Any) -> None:
    """EL-DIAG-1."""
    device = make_device("d1")
    controller.takes(device.hello(), device.reported())
    asked = Answering(
        controller,
        lambda request, _n: (
            response(request, text="b", part=2, parts=2),
            response(request, text="b", part=2, parts=2),
            response(request, text="a", part=1, parts=2),
        ),
    )
    answer = api.post("/devices/d1/diagnosis", json={"asks": "logs", "slot": "main", "lines": 7})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "device": "d1", "asks": "logs", "slot": "main", "done": True, "text": "ab",
    }  # fmt: skip
    (request,) = asked.requests
    assert (request.slot, request.lines_max) == ("main", 7)
    assert (request.said.epoch, request.said.sequence) == (device.epoch, device.sequence)


def test_no_answer_and_no_such_device(controller: Any, make_device: Any, api: Any) -> None:
    controller.takes(make_device("d1").hello())
    silent = api.post("/devices/d1/diagnosis", json={"asks": "status", "timeout_s": 0.05})
    assert silent.status_code == 504
    assert silent.json()["error"]["code"] == "no_answer"
    assert "within 0.05 s" in silent.json()["error"]["message"]
    assert api.post("/devices/d2/diagnosis", json={"asks": "status"}).status_code == 404
    assert api.post("/devices/d1/diagnosis", json={"asks": "dance"}).status_code == 422


def test_only_the_device_that_was_asked_can_answer(controller: Any, make_device: Any) -> None:
    controller.takes(make_device("d1").hello(), make_device("d2").hello())
    Answering(controller, lambda request, _n: (response(request, device_id="d2"),))
    with pytest.raises(NoAnswerError):
        controller.parts.services.diagnosis.ask("d1", Ask.LOGS, None, 1, 0.2)


def test_it_is_said_again_under_its_id_with_what_was_heard_since(
    controller: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EL-DIAG-2, EL-DIAG-3."""
    monkeypatch.setattr(diagnosis, "SAID_AGAIN_EVERY_S", 0.05)
    device = make_device("d1")
    controller.takes(device.hello())

    def answers(request: Request, number: int) -> tuple[Inbound, ...]:
        return (device.hello(),) if number == 1 else (response(request),) if number > 3 else ()

    asked = Answering(controller, answers)
    answer = controller.parts.services.diagnosis.ask("d1", Ask.RESTART_RUNNER, "main", 1, 10.0)
    assert answer.done
    assert len({request.id for request in asked.requests}) == 1
    assert (asked.requests[0].said.sequence, asked.requests[-1].said.sequence) == (1, 2)


def test_at_most_so_many_wait_and_nothing_is_remembered_of_them(
    controller: Any, make_device: Any, wait_until: Any
) -> None:
    controller.takes(make_device("d1").hello())
    service = controller.parts.services.diagnosis
    with pytest.raises(NotFoundError):
        service.ask("d2", Ask.LOGS, None, 1, 1.0)
    refused: list[Exception] = []

    def ask() -> None:
        try:
            service.ask("d1", Ask.LOGS, None, 1, 1.0)
        except (NoAnswerError, ConflictError) as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(diagnosis.WAITING_MAX + 1)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 10
    assert [type(it) for it in refused].count(ConflictError) == 1
    assert service._waiting == {}


def test_an_answer_that_nobody_waits_for_holds_up_nothing(
    controller: Any, make_device: Any, telemetry: Any
) -> None:
    controller.takes(make_device("d1").hello())
    request = Request(id="0" * 16, asks="logs", said={"epoch": "a" * 16, "sequence": 1})
    controller.takes(response(request), telemetry("d1", "a" * 16, 1, 1))
    assert [ack.through for ack in controller.broker.acks("d1")] == [1]


def test_how_many_examples_is_said_and_bounded(controller: Any, make_device: Any, api: Any) -> None:
    """EL-DIAG-5."""
    device = make_device("d1")
    controller.takes(device.hello(), device.reported())
    asked = Answering(controller, lambda request, _n: (response(request, text="7 will come"),))
    body = {"asks": "capture", "slot": "main", "examples": 7}
    answer = api.post("/devices/d1/diagnosis", json=body)
    assert (answer.status_code, answer.json()["text"]) == (200, "7 will come")
    assert (asked.requests[0].asks, asked.requests[0].examples_max) == (Ask.CAPTURE, 7)
    body["examples"] = CAPTURE_EXAMPLES_MAX + 1
    assert api.post("/devices/d1/diagnosis", json=body).status_code == 422
