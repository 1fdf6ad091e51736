"""Sources and sinks beyond files and sockets: lines, a local MQTT topic, plug-ins; handing over."""

import json
import os
import queue
import socket
import threading

import numpy as np
import pytest

from edgeloop_agent import plugins
from edgeloop_agent.config import MqttTopic, SlotConfig
from edgeloop_agent.endpoints import SlotEndpoint
from edgeloop_agent.errors import DataSetError
from edgeloop_agent.runner.handover import HandOver, Left
from edgeloop_agent.runner.line_feed import LINE_MAX_BYTES, LineFeed
from edgeloop_agent.runner.mqtt_topic import MqttFeed, MqttSink
from edgeloop_agent.runner.open_source import open_sink, open_source
from edgeloop_agent.runner.sinks import DiscardingSink
from edgeloop_agent.runner.sources import Replay


@pytest.fixture
def hand_over():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return HandOver(pair[0].detach(), pair[1].detach())


# ---- handing over -----------------------------------------------------------------------------


def test_what_is_left_comes_with_its_connection_and_every_byte(hand_over):
    ours, theirs = socket.socketpair()
    hand_over.give(Left(ours, b"half a request" * 100_000, b"an answer"))
    hand_over.give(Left(None, b"half a line"))
    connection, line = hand_over.take()
    assert connection.unread == b"half a request" * 100_000
    assert connection.unsent == b"an answer"
    connection.connection.send(b"hello")
    assert theirs.recv(10) == b"hello"
    assert (line.connection, line.unread, line.unsent) == (None, b"half a line", b"")
    assert hand_over.take() == []
    assert hand_over.lost == 0


def test_as_many_connections_as_a_server_has_can_be_left(tmp_path):
    config = SlotConfig.model_validate(
        {"source": {"kind": "open_inference", "path": str(tmp_path / "s")}}
    )
    endpoint = SlotEndpoint(config.source)
    line = endpoint.line()
    channel = HandOver(os.dup(line.hand_over), os.dup(line.take_over))
    peers = []
    for _ in range(256):
        ours, theirs = socket.socketpair()
        peers.append(theirs)
        channel.give(Left(ours, b"x"))
    assert channel.lost == 0
    assert len(channel.take()) == 256


# ---- lines ------------------------------------------------------------------------------------


def line_of(reference):
    return json.dumps({"reference": reference, "values": [1, 2]}).encode() + b"\n"


def test_lines_come_whole_and_the_rest_is_left_to_the_next(hand_over):
    reading, writing = os.pipe()
    feed = LineFeed(reading, hand_over)
    assert feed.read(0.0) == [], "nothing has come, and it does not block"
    half = line_of("c")
    os.write(writing, line_of("a") + line_of("b") + half[:9])
    assert [example.reference for example in feed.read(0.0)] == ["a", "b"]
    feed.close()
    successor = LineFeed(reading, hand_over)
    os.write(writing, half[9:] + b"junk\n" + b"x" * 100)
    found = successor.read(0.0)
    assert [example.reference for example in found] == ["c", ""]
    assert found[1].problem
    os.close(writing)
    assert [example.problem[:9] for example in successor.read(0.0)] == ["a line is"]
    assert successor.fileno() is None
    assert successor.read(0.0) == []


def test_an_endless_line_is_cut(hand_over):
    reading, writing = os.pipe()
    feed = LineFeed(reading, hand_over)
    writer = threading.Thread(
        target=lambda: (os.write(writing, b"x" * (LINE_MAX_BYTES + 200_000)), os.close(writing))
    )
    writer.start()
    found = []
    while feed.fileno() is not None:
        found += feed.read(0.0)
    writer.join()
    assert str(LINE_MAX_BYTES) in found[0].problem


def test_a_fifo_is_made_and_never_ends(tmp_path, hand_over):
    config = SlotConfig.model_validate({"source": {"kind": "lines", "path": str(tmp_path / "f")}})
    endpoint = SlotEndpoint(config.source)
    assert len(endpoint.descriptors()) == 3
    feed = LineFeed(endpoint.line().feed, hand_over)
    for name in ("a", "b"):
        with (tmp_path / "f").open("wb") as file:
            file.write(line_of(name))
        assert [example.reference for example in feed.read(0.0)] == [name]
    assert feed.fileno() is not None


# ---- MQTT -------------------------------------------------------------------------------------


def until(feed, wait_until, count):
    found = []
    wait_until(lambda: found.extend(feed.read(10**9)) or len(found) >= count)
    return found


def test_examples_come_from_a_topic_and_answers_go_to_one(mosquitto, wait_until):
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    heard = queue.Queue()
    other = paho.Client(CallbackAPIVersion.VERSION2)
    other.on_message = lambda _c, _d, message: heard.put(json.loads(message.payload))
    other.connect("127.0.0.1", mosquitto.port)
    other.subscribe("answers")
    other.loop_start()
    feed = MqttFeed(MqttTopic(topic="sensor/a", port=mosquitto.port))
    sink = MqttSink(MqttTopic(topic="answers", port=mosquitto.port))
    subscribed = threading.Event()
    connected = feed._mqtt.client.on_connect
    feed._mqtt.client.on_connect = lambda *given: connected(*given)
    feed._mqtt.client.on_subscribe = lambda *_: subscribed.set()
    wait_until(lambda: feed.read(10**9) is not None and subscribed.is_set())
    other.publish("sensor/a", line_of("r1"))
    other.publish("sensor/a", "[3, 4]")
    other.publish("sensor/a", "nonsense")
    first, second, third = until(feed, wait_until, 3)
    assert (first.reference, first.values.tolist()) == ("r1", [1, 2])
    assert (second.reference, second.values.tolist()) == ("sensor/a#2", [3, 4])
    assert third.problem
    wait_until(lambda: sink.answer({"label": "x"}) or not heard.empty())
    assert heard.get() == {"label": "x"}
    feed.close()
    sink.close()
    other.loop_stop()


def test_a_broker_that_is_away_costs_answers_and_nothing_else():
    feed = MqttFeed(MqttTopic(topic="t", port=1))
    sink = MqttSink(MqttTopic(topic="t", port=1))
    assert feed.read(1.0) == []
    assert feed.fileno() is None
    assert feed.next_due() > 1.0
    sink.answer({})
    assert sink.dropped == 1
    feed.close()
    sink.close()


# ---- plug-ins ---------------------------------------------------------------------------------


class Ones:
    """A plug-in's source."""

    wants_to_write = False

    def __init__(self, options):
        self.count = options["count"]

    def fileno(self):
        return None

    def next_due(self):
        return None

    def flush(self): ...

    def read(self, now): ...

    def close(self): ...


def slot(source, **more):
    return SlotConfig.model_validate({"source": source, **more})


def test_kinds_that_are_not_built_in_are_plug_ins(monkeypatch, tmp_path):
    np.save(tmp_path / "s.npy", np.ones((2, 2)))
    replay = {"kind": "replay", "path": str(tmp_path / "s.npy")}
    assert isinstance(open_source(slot(replay), None, None), Replay)
    assert isinstance(open_sink(slot(replay), None), DiscardingSink)
    monkeypatch.setattr(plugins, "load", lambda group, name: {"ones": Ones}[name])
    three, four = ({"kind": "ones", "options": {"count": count}} for count in (3, 4))
    config = slot(three, sink=four)
    assert SlotConfig.model_validate_json(config.model_dump_json()) == config
    assert open_source(config, None, None).count == 3
    assert open_sink(config, None).count == 4
    broken = slot({"kind": "ones", "options": {}})
    with pytest.raises(DataSetError, match="source ones: 'count'"):
        open_source(broken, None, None)


def test_a_plug_in_that_is_not_installed_is_said_in_words():
    with pytest.raises(DataSetError, match=r"nothing installed is 'camera' of edgeloop\.sources"):
        open_source(slot({"kind": "camera"}), None, None)


def test_an_open_inference_source_needs_one_address():
    for address in ({}, {"port": 80, "path": "/tmp/x"}):
        with pytest.raises(ValueError, match="give one of them"):
            slot({"kind": "open_inference", **address})
    with pytest.raises(ValueError, match="host"):
        slot({"kind": "open_inference", "host": "0.0.0.0", "port": 80})
