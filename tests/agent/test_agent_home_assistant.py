"""Slots as update entities of Home Assistant: what is said, when, and by a real agent, retained."""

import json
import threading
from types import SimpleNamespace

import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell.home_assistant import HomeAssistantStatus, state_of
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Refusal, SlotReported, VersionRef
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker

ONE = VersionRef(name="m", version="1", manifest_digest="0" * 64)
TWO = VersionRef(name="m", version="2", manifest_digest="1" * 64)
IDLE = SlotReported(slot="ma.in", state=SlotState.IDLE)
BASE = "homeassistant/update/edgeloop_dev1_ma_in"


def reported(state, **more):
    return SlotReported(slot="ma.in", state=state, **more)


def test_an_install_is_in_progress_and_advances():
    seen = [
        state_of(reported(state, champion=ONE, candidate=TWO))
        for state in list(SlotState)
        if state not in (SlotState.IDLE, SlotState.COMMITTED, SlotState.ROLLED_BACK)
    ]
    assert all(it["in_progress"] and it["latest_version"] == "m@2" for it in seen)
    percentages = [it["update_percentage"] for it in seen]
    assert percentages == sorted(set(percentages))
    assert 0 < percentages[0] < percentages[-1] < 100


def test_what_runs_what_waits_and_what_was_refused():
    assert state_of(reported(SlotState.COMMITTED, champion=ONE)) == {
        "installed_version": "m@1",
        "latest_version": "m@1",
        "in_progress": False,
        "update_percentage": None,
        "release_summary": None,
    }
    refused = Refusal(version=TWO, cause="nan or inf")
    rolled_back = state_of(reported(SlotState.ROLLED_BACK, champion=ONE, refused=refused))
    assert rolled_back["latest_version"] == "m@1", "nothing is offered to install by hand"
    assert rolled_back["release_summary"] == "refused m@2: nan or inf"
    waits = state_of(reported(SlotState.IDLE, candidate=TWO, waiting="w" * 500))
    assert waits["release_summary"] == "w" * 255
    assert waits["installed_version"] is None


@pytest.fixture
def rig():
    said, taking = [], [True]
    config = AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": "/tmp/state",
            "controller_url": "http://127.0.0.1:1",
            "slots": {"ma.in": {"source": {"kind": "socket", "path": "/none"}}},
            "home_assistant": {},
        }
    )

    def publish(topic, payload):
        if taking[0]:
            said.append((topic, json.loads(payload)))
        return taking[0]

    inside = SimpleNamespace(refreshed=0)

    def refresh(*_):
        inside.refreshed += 1

    inside.refresh = refresh
    device = SimpleNamespace(connected=True, slot=IDLE)
    device.reported = lambda: (device.slot,)
    status = HomeAssistantStatus(inside, config, publish)
    return SimpleNamespace(status=status, device=device, said=said, taking=taking, inside=inside)


def turn(rig):
    rig.said.clear()
    rig.status.refresh(rig.device, None)
    return [topic for topic, _ in rig.said]


def test_it_is_said_on_connect_and_when_it_changes(rig):
    rig.device.connected = False
    assert turn(rig) == []
    rig.device.connected = True
    assert turn(rig) == [f"{BASE}/config", f"{BASE}/state"]
    assert rig.said[0][1]["state_topic"] == f"{BASE}/state"
    assert turn(rig) == []
    rig.device.slot = reported(SlotState.COMMITTED, champion=ONE)
    assert turn(rig) == [f"{BASE}/state"]
    rig.device.connected = False
    turn(rig)
    rig.device.connected = True
    assert turn(rig) == [f"{BASE}/config", f"{BASE}/state"], "a broker may have forgotten"
    assert rig.inside.refreshed == 6


def test_what_is_not_taken_is_said_again(rig):
    rig.taking[0] = False
    assert turn(rig) == []
    rig.taking[0] = True
    assert turn(rig) == [f"{BASE}/config", f"{BASE}/state"]


@pytest.mark.e2e
def test_a_real_agent_leaves_it_with_the_broker(agent, mosquitto, wait_until):
    text = agent.config_path.read_text()
    agent.config_path.write_text(text + '[home_assistant]\ndiscovery_prefix = "ha"\n')
    agent.start()
    wait_until(lambda: agent.status().get("broker_connected"))
    kept, connected = {}, threading.Event()
    listener = SimpleNamespace(
        connected=connected.set,
        disconnected=lambda _reason: None,
        message=lambda topic, payload: kept.update({topic: json.loads(payload)}),
    )
    late = PahoBroker(BrokerAddress("127.0.0.1", mosquitto.port), "home", ("ha/update/+/+",))
    late.start(listener)
    try:
        wait_until(lambda: len(kept) == 2, what="who comes late finds it")
    finally:
        late.stop()
    assert kept["ha/update/edgeloop_dev1_main/config"]["device"]["name"] == "dev1"
    assert kept["ha/update/edgeloop_dev1_main/state"]["installed_version"] is None
