"""`edgeloop-agent run` and `edgeloop-agent status` (argparse: a device has no memory to spare)."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.errors import AgentError, NotRunningError, StateDirInUseError
from edgeloop_agent.exit_codes import ExitCode
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        config = load_config(AgentConfig, options.config)
        if options.command == "run":
            return _run(config)
        return _status(config, options.json)
    except ConfigError as error:
        return _fail(error, ExitCode.USAGE)
    except StateDirInUseError as error:
        return _fail(error, ExitCode.STATE_DIR_IN_USE)
    except NotRunningError as error:
        return _fail(error, ExitCode.NOT_RUNNING)
    except (AgentError, OSError) as error:
        return _fail(error, ExitCode.FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeloop-agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the agent until SIGTERM or Ctrl-C")
    status = commands.add_parser("status", help="what the agent on this device does")
    for command in (run, status):
        command.add_argument("--config", type=Path, required=True, help="agent.toml")
    status.add_argument("--json", action="store_true", help="the whole document, as JSON")
    return parser


def _run(config: AgentConfig) -> int:
    from edgeloop_agent.shell.compose import run_agent

    logging.basicConfig(
        level=config.log_level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {config.device_id} %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run_agent(config)
    return ExitCode.OK


def _status(config: AgentConfig, as_json: bool) -> int:
    """Shows the last status even when no agent runs, and says so by the exit code."""
    from edgeloop_agent.shell.status import read_status

    status = read_status(config.state_dir)
    print(json.dumps(status, indent=1) if as_json else _in_words(status))
    return ExitCode.OK if status["running"] else ExitCode.NOT_RUNNING


def _in_words(status: dict[str, Any]) -> str:
    broker = "connected" if status["broker_connected"] else "not connected"
    running = f"running, pid {status['pid']}" if status["running"] else "not running"
    lines = [
        f"device    {status['device_id']} ({running})",
        f"broker    {broker}; desired revision {status['revision']}",
    ]
    for slot in status["slots"]:
        lines.append(f"slot      {slot['slot']}: {slot['state']}{_versions(slot)}")
        if slot["waiting"]:
            lines.append(f"          waiting: {slot['waiting']}")
        if slot["refused"]:
            refused = slot["refused"]
            lines.append(f"          refused {_name(refused['version'])}: {refused['cause']}")
        confinement = status.get("confinement", {}).get(slot["slot"], {})
        lines += [f"          runner: {done}" for done in confinement.get("done", ())]
        lines += [f"          runner not confined: {it}" for it in confinement.get("lacking", ())]
    outbox = status["outbox"]
    lines.append(
        f"outbox    {outbox['held']} records ({outbox['held_bytes']} bytes) wait to be "
        f"acknowledged, {outbox['dropped']} dropped"
    )
    return "\n".join(lines)


def _versions(slot: dict[str, Any]) -> str:
    runner = "" if slot["runner_alive"] else ", no runner serves"
    champion = f", runs {_name(slot['champion'])}" if slot["champion"] else ", no version yet"
    candidate = f", installs {_name(slot['candidate'])}" if slot["candidate"] else ""
    return champion + candidate + runner


def _name(version: dict[str, Any]) -> str:
    return f"{version['name']}@{version['version']}"


def _fail(error: Exception, code: ExitCode) -> int:
    print(f"edgeloop-agent: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
