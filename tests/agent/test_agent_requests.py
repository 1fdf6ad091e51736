"""Requests from afar: fresh, once, answered, bounded."""

import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import AnswerRequest, SendHello, SendReported
from edgeloop_agent.core.events import CaptureAsked, RestartRunnerAsked
from edgeloop_agent.shell.requests import ANSWER_MAX_CHARS, Requests
from edgeloop_agent.shell.uplink import Uplink
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES, REQUESTS_REMEMBERED_MAX
from edgeloop_protocol.messages import Inventory, Request, Response, Said, decode
from edgeloop_protocol.topics import Up, parse_up_topic

EPOCH = "0" * 16
INVENTORY = Inventory(
    agent_version="0", architecture="x", python="3", memory_bytes=1, disk_free_bytes=1, cpu_count=1
)


class Rig:
    def __init__(self):
        self.payloads = []
        self.text = "a log"
        config = AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": "/tmp/state",
                "controller_url": "http://127.0.0.1:1",
                "slots": {"main": {"source": {"kind": "socket", "path": "/none"}}},
            }
        )
        self.uplink = Uplink(config, self, EPOCH, lambda: INVENTORY)
        self.requests = Requests(self.uplink, self.diagnose)
        self.uplink.hello(SendHello(0, ()))

    def publish(self, topic, payload):
        if parse_up_topic(topic).kind is Up.RESPONSE:
            self.payloads.append(payload)
        return True

    def diagnose(self, request):
        if isinstance(self.text, OSError):
            raise self.text
        return self.text

    def answers(self):
        return [decode(Response, payload) for payload in self.payloads]


@pytest.fixture
def rig():
    return Rig()


def request(asks="logs", sequence=1, epoch=EPOCH, number=1, **more):
    said = Said(epoch=epoch, sequence=sequence)
    return Request(id=f"{number:016x}", asks=asks, said=said, **more)


def test_logs_and_status_are_answered_by_the_shell(rig):
    """EL-DIAG-1."""
    assert rig.requests.take(request()) is None
    (answer,) = rig.answers()
    assert (answer.id, answer.done, answer.text, answer.parts) == (f"{1:016x}", True, "a log", 1)


def test_what_cannot_be_read_or_understood_is_answered_too(rig):
    """EL-DIAG-1."""
    rig.text = OSError(5, "Input/output error")
    rig.requests.take(request())
    rig.requests.take(request("dance", number=2))
    rig.requests.take(request("restart_runner", number=3))
    words = [answer.text for answer in rig.answers()]
    assert [answer.done for answer in rig.answers()] == [False] * 3
    assert "Input/output error" in words[0]
    assert "does not understand 'dance'" in words[1]
    assert "names no slot" in words[2]


@pytest.mark.parametrize(
    ("sequence", "epoch", "acts"),
    [
        (3, EPOCH, True),
        (4, EPOCH, True),
        (2, EPOCH, False),  # before the hello of this connection
        (5, EPOCH, False),  # what was never said cannot have been heard
        (3, "1" * 16, False),  # of another boot
    ],
)
def test_only_who_has_heard_this_connection_is_obeyed(rig, sequence, epoch, acts):
    """EL-DIAG-2."""
    rig.uplink.reported(SendReported(0, ()))
    rig.uplink.hello(SendHello(0, ()))
    rig.uplink.reported(SendReported(0, ()))
    event = rig.requests.take(request("restart_runner", sequence, epoch, slot="main"))
    assert (event == RestartRunnerAsked("main", f"{1:016x}")) is acts
    assert [answer.text for answer in rig.answers()] == (
        [] if acts else ["it was asked before this connection: ask again"]
    )


def test_a_restart_is_done_once_for_an_id(rig):
    """EL-DIAG-3."""
    asked = request("restart_runner", slot="main")
    event = rig.requests.take(asked)
    rig.requests.answered(AnswerRequest(event.request, True, "it begins anew"))
    assert rig.requests.take(asked) is None
    rig.uplink.hello(SendHello(0, ()))
    assert rig.requests.take(asked) is None
    first, *again = rig.answers()
    assert again == [first, first]


def test_what_is_remembered_is_bounded(rig):
    for number in range(REQUESTS_REMEMBERED_MAX + 1):
        rig.requests.answered(AnswerRequest(f"{number:016x}", True, ""))
    last = request("restart_runner", number=REQUESTS_REMEMBERED_MAX, slot="main")
    assert rig.requests.take(last) is None
    assert rig.requests.take(request("restart_runner", number=0, slot="main")) is not None


def test_a_long_answer_is_its_end_in_parts_that_fit(rig):
    """EL-DIAG-4."""
    rig.text = "\x01" * ANSWER_MAX_CHARS + "the end"
    rig.requests.take(request())
    answers = rig.answers()
    assert [(answer.part, answer.parts) for answer in answers] == [(n, 4) for n in range(1, 5)]
    assert max(map(len, rig.payloads)) <= PAYLOAD_MAX_BYTES
    whole = "".join(answer.text for answer in answers)
    assert len(whole) == ANSWER_MAX_CHARS
    assert whole.startswith(f"({ANSWER_MAX_CHARS + 7} characters: only the last are shown)\n")
    assert whole.endswith("the end")


def test_an_empty_log_is_one_empty_part(rig):
    rig.text = ""
    rig.requests.take(request())
    assert [(answer.text, answer.done) for answer in rig.answers()] == [("", True)]


def test_a_capture_is_for_the_core_to_answer_and_done_once(rig):
    """EL-DIAG-3."""
    asked = request("capture", slot="main", examples_max=7)
    assert rig.requests.take(asked) == CaptureAsked("main", asked.id, 7)
    rig.requests.answered(AnswerRequest(asked.id, True, "7 examples will come"))
    assert rig.requests.take(asked) is None
    assert [answer.text for answer in rig.answers()] == ["7 examples will come"] * 2


def test_a_capture_without_a_slot_or_without_bytes_is_refused(rig):
    """EL-DIAG-5."""
    assert rig.requests.take(request("capture")) is None
    poor = Requests(rig.uplink, rig.diagnose, lambda: 10.0)
    assert poor.take(request("capture", number=2, slot="main")) is None
    words = [answer.text for answer in rig.answers()]
    assert "names no slot" in words[0]
    assert "bytes for samples are used up" in words[1]
