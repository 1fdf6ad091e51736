"""What anybody who reaches the broker may send: oversized and malformed messages to every topic,
and lines for the log. Lines of defence: limits before decoding, typed decoding, one record a line.
"""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from controller_bench import Controller, FakeDevice, make_controller

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell import agent_log
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store import devices
from edgeloop_controller.store.engine import Database
from edgeloop_protocol import log_lines, messages
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.log_lines import OneLineFormatter, printable
from edgeloop_protocol.topics import Up, up_topic

FORGED = "2026-01-01 00:00:00 INFO edgeloop: rollout 4 approved by root"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    yield make_controller(database, ControllerConfig(data_dir=tmp_path))
    database.close()


MALFORMED = (
    b"",
    b"\x00\xff\xfe",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}" * 1000,
    b"[" * 100_000,
    b'{"a":' * 5000,
    b'{"epoch":1e999}',
    b'{"sequence":-1,"epoch":"' + b"a" * 1000 + b'"}',
    json.dumps({f"x\n{FORGED}": 1}).encode(),
    json.dumps({"device_id": "other", "epoch": "a" * 16, "sequence": 1}).encode(),
    b" " * (PAYLOAD_MAX_BYTES + 1),
)


@pytest.mark.parametrize("kind", Up)
def test_malformed_and_oversized_to_every_topic(controller: Controller, kind: Up) -> None:
    """Each is refused, and holds up nothing that stands behind it."""
    good = FakeDevice("good")
    for number, payload in enumerate(MALFORMED):
        topics = (up_topic("d1", kind), f"edgeloop/v1/d1/up/{kind.value}/more", "edgeloop/v1//up/x")
        controller.takes(*(Inbound(topic, payload) for topic in topics), good.hello())
        with controller.parts.services.database.reading() as session:
            assert devices.require(session, "good").state_sequence == number + 1
    with controller.parts.services.database.reading() as session:
        assert [row.id for row in devices.every(session)] == ["good"]


def test_without_the_line_an_oversized_one_is_taken(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = FakeDevice("d1").hello()
    padded = Inbound(hello.topic, hello.payload + b" " * PAYLOAD_MAX_BYTES)

    def known() -> list[str]:
        with controller.parts.services.database.reading() as session:
            return [row.id for row in devices.every(session)]

    controller.takes(padded)
    assert known() == []
    monkeypatch.setattr(messages, "PAYLOAD_MAX_BYTES", 10 * PAYLOAD_MAX_BYTES)
    controller.takes(padded)
    assert known() == ["d1"]


class TestLogInjection:
    @pytest.fixture
    def log(self) -> Iterator[tuple[io.StringIO, logging.Handler]]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(OneLineFormatter("%(levelname)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        yield stream, handler
        root.removeHandler(handler)

    def _attack(self, controller: Controller) -> None:
        hello = json.loads(FakeDevice("d1").hello().payload)
        hello["labels"] = {f"x\x1b[2J\n{FORGED}": 1}
        controller.takes(Inbound(up_topic("d1", Up.HELLO), json.dumps(hello).encode()))

    def test_a_key_cannot_begin_a_line(
        self, controller: Controller, log: tuple[io.StringIO, logging.Handler]
    ) -> None:
        self._attack(controller)
        text = log[0].getvalue()
        assert FORGED in text, "what was sent is shown"
        assert not [line for line in text.splitlines() if line.startswith(FORGED)]
        assert "\x1b" not in text

    def test_without_the_line_it_does(
        self, controller: Controller, log: tuple[io.StringIO, logging.Handler]
    ) -> None:
        log[1].setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self._attack(controller)
        assert [line for line in log[0].getvalue().splitlines() if line.startswith(FORGED)]

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_nor_in_the_agents_log(self, tmp_path: Path, log_format: str) -> None:
        config = AgentConfig.model_validate(
            {
                "device_id": "d1",
                "controller_url": "http://127.0.0.1:1",
                "state_dir": tmp_path,
                "log_format": log_format,
                "slots": {"main": {"source": {"kind": "lines"}, "sink": {"kind": "none"}}},
            }
        )
        formatter = agent_log._formatter(config)
        try:
            raise ValueError(f"no such key\n{FORGED}")
        except ValueError:
            record = logging.LogRecord(
                "edgeloop", logging.ERROR, "", 0, "a\n%s", (FORGED,), sys.exc_info()
            )
        lines = formatter.format(record).splitlines()
        assert not [line for line in lines if line.startswith(FORGED)]
        if log_format == "json":
            assert len(lines) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("a\tb", "a\tb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eesrever", "\\u202eesrever"),
        ("\u2028line", "\\u2028line"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_what_is_printable_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_terminal_is_not_steered(capsys: pytest.CaptureFixture[str], monkeypatch: object) -> None:
    from edgeloop_controller.cli import output

    output.table(("device", "cause"), [("d\x1b[2J", "[bold]x\x07")], "none")
    output.say("a\x1b]0;title\x07\nb")
    text = capsys.readouterr().out
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\x1b]" not in text
    assert "a\\x1b]0;title" in text


def test_without_the_line_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeloop_controller.cli import output

    same: Callable[..., str] = lambda text, kept=frozenset(): text  # noqa: E731
    monkeypatch.setattr(output, "printable", same)
    output.say("a\x1b]0;title\x07\nb")
    assert "\x1b]" in capsys.readouterr().out
    assert log_lines.printable("\x07") == "\\x07"
