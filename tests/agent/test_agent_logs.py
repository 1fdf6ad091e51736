"""Logs: bounded, in words or JSON, read back and followed."""

import json
import logging
import sys

import pytest

from edgeloop_agent.cli import main
from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell.agent_log import agent_log_path, configure_logging
from edgeloop_agent.shell.bounded_log import FILE_MAX_BYTES, BoundedLog
from edgeloop_agent.shell.log_tail import Follower, last_lines
from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES


@pytest.fixture
def config(tmp_path):
    return AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": str(tmp_path),
            "controller_url": "http://127.0.0.1:1",
            "slots": {"main": {"source": {"kind": "socket", "path": "/none"}}},
        }
    )


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_logs_are_one_document_a_line(config, root_logger, tmp_path):
    configure_logging(config.model_copy(update={"log_format": "json"}))
    logger = logging.getLogger("edgeloop_agent.test")
    logger.info("two\nlines %s", "ä")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    said, failed = map(json.loads, agent_log_path(tmp_path).read_text().splitlines())
    assert said["message"] == "two\nlines ä"
    assert (said["device"], said["level"], said["logger"]) == ("dev1", "info", logger.name)
    assert set(said) == {"at", "level", "device", "logger", "message"}
    assert "ValueError: bad" in failed["exception"]


def test_another_configuration_takes_over_while_it_runs(config, root_logger, tmp_path):
    configure_logging(config)
    logging.debug("hidden")
    configure_logging(config.model_copy(update={"log_level": "debug"}))
    logging.debug("shown")
    (line,) = agent_log_path(tmp_path).read_text().splitlines()
    assert line.endswith("DEBUG dev1 root: shown")


def test_the_log_stays_within_its_bound(tmp_path):
    log = BoundedLog(tmp_path / "agent.log")
    line = b"x" * 999 + b"\n"
    for _ in range(3 * FILE_MAX_BYTES // len(line)):
        log.write(line)
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert FILE_MAX_BYTES <= held <= RUNNER_LOG_MAX_BYTES + len(line)


def test_the_last_lines_reach_into_the_older_file(tmp_path):
    path = tmp_path / "agent.log"
    (tmp_path / "agent.log.1").write_text("1\n2\n")
    path.write_bytes(b"3\n\xff\n")
    assert last_lines(path, 3) == ["2", "3", "�"]
    assert last_lines(tmp_path / "none.log", 3) == []


def test_following_loses_nothing_when_the_log_is_turned_over(tmp_path):
    path = tmp_path / "agent.log"
    follower = Follower(path)
    assert follower.new_text() == ""
    path.write_text("a\n")
    assert follower.new_text() == "a\n"
    with path.open("a") as file:
        file.write("b\n")
    path.replace(tmp_path / "agent.log.1")
    assert follower.new_text() == "b\n"
    path.write_text("c\n")
    assert follower.new_text() == "c\n"
    assert Follower(path).new_text() == "", "from the end on"


def test_the_command_shows_the_agents_or_a_slots_log(config, tmp_path, capsys):
    toml = tmp_path / "agent.toml"
    toml.write_text(
        f'device_id = "dev1"\nstate_dir = "{tmp_path}"\ncontroller_url = "http://127.0.0.1"\n'
        '[slots.main.source]\nkind = "socket"\npath = "/none"\n'
    )
    (tmp_path / "agent.log").write_text("one\ntwo\n")
    (tmp_path / "runner-main.log").write_text("of the runner\n")
    assert main(["logs", "--config", str(toml), "--lines", "1"]) == 0
    assert capsys.readouterr().out == "two\n"
    assert main(["logs", "--config", str(toml), "--slot", "main"]) == 0
    assert capsys.readouterr().out == "of the runner\n"
    assert main(["logs", "--config", str(toml), "--slot", "other"]) == 2
    assert "there are main" in capsys.readouterr().err


def test_a_disk_that_takes_nothing_stops_no_log(config, root_logger, tmp_path, capsys):
    gone = config.model_copy(update={"state_dir": tmp_path / "gone"})
    configure_logging(gone)
    logging.getLogger().handlers[0].setStream(sys.stderr)
    logging.warning("still said")
    assert "still said" in capsys.readouterr().err
