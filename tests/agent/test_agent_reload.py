"""What a configuration read again may change live, and what not."""

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell.reload import plan

SOURCE = {"kind": "socket", "path": "/run/a.sock"}


def config(**change):
    return AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": "/tmp/state",
            "controller_url": "http://127.0.0.1:1",
            "slots": {"a": {"source": SOURCE}, "b": {"source": SOURCE}},
            **change,
        }
    )


def test_labels_and_logging_change_at_once():
    reload = plan(config(), config(labels={"site": "x"}, log_level="debug", log_format="json"))
    assert reload.at_once == ("labels", "log_format", "log_level")
    assert reload.restart_slots == reload.waits == ()
    assert reload.config == config(labels={"site": "x"}, log_level="debug", log_format="json")


def test_a_slots_source_restarts_its_runner_alone():
    other = {"source": {"kind": "socket", "path": "/run/b.sock"}}
    reload = plan(config(), config(slots={"a": {"source": SOURCE}, "b": other}))
    assert reload.restart_slots == ("b",)
    assert str(reload.config.slots["b"].source.path) == "/run/b.sock"
    assert not reload.waits


def test_what_runners_are_told_of_telemetry_restarts_all():
    reload = plan(config(), config(telemetry={"window_s": 3, "outbox_max_bytes": 9}))
    assert reload.restart_slots == ("a", "b")
    assert reload.config.telemetry.window_s == 3
    assert reload.waits == ("telemetry.outbox_max_bytes",)
    assert reload.config.telemetry.outbox_max_bytes == config().telemetry.outbox_max_bytes


def test_a_cap_on_downloads_changes_at_once_and_other_limits_wait():
    new = config(limits={"download_bytes_per_s_max": 5000, "attempts_max": 9})
    reload = plan(config(), new)
    assert reload.at_once == ("limits.download_bytes_per_s_max",)
    assert reload.waits == ("limits.attempts_max",)
    assert reload.config.limits.download_bytes_per_s_max == 5000
    assert reload.config.limits.attempts_max == config().limits.attempts_max
    assert not reload.restart_slots


def test_the_rest_is_named_and_stays_as_it_was():
    new = config(
        device_id="dev2", broker={"port": 1}, slots={"a": {"source": SOURCE}}, labels={"x": "y"}
    )
    reload = plan(config(), new)
    assert reload.waits == ("broker", "device_id", "slots.b")
    assert (reload.config.device_id, set(reload.config.slots)) == ("dev1", {"a", "b"})
    assert "needs a restart of the agent: broker, device_id, slots.b" in reload.in_words()
    again = plan(reload.config, new)
    assert again.waits == reload.waits, "and is named again"
    assert not again.at_once


def test_nothing_changed():
    assert plan(config(), config()).in_words() == "nothing changed"
