"""`edgeloop-agent`: run, status, doctor, logs, enroll, reset, systemd-unit, tuf (argparse: a device
has no memory to spare)."""

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.errors import AgentError, NotRunningError, StateDirInUseError
from edgeloop_agent.exit_codes import ExitCode
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

LINES_DEFAULT: Final = 200
FOLLOW_EVERY_S: Final = 0.5
TUF: Final = "tuf"
"""A program of its own, with its own options, that imports what the agent does not."""


ENROLL: Final = "enroll"
"""A program of its own, since it imports `cryptography`."""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == [TUF]:
        from edgeloop_agent.trust import program

        return program.main(arguments[1:])
    if arguments[:1] == [ENROLL]:
        return _enroll(arguments)
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
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
    doctor = commands.add_parser("doctor", help="what is wrong here, and how to mend it")
    logs = commands.add_parser("logs", help="the agent's log, or that of a slot's runners")
    reset = commands.add_parser("reset", help="factory reset: take away all that is kept here")
    commands.add_parser(ENROLL, help="get this device's certificate: see `enroll --help`")
    unit = commands.add_parser("systemd-unit", help="print a systemd unit for this installation")
    commands.add_parser(TUF, help="the TUF client alone: see `edgeloop-agent tuf --help`")
    for command in (run, status, doctor, logs, reset, unit):
        command.add_argument("--config", type=Path, required=True, help="agent.toml")
    for command in (status, doctor):
        command.add_argument("--json", action="store_true", help="the whole document, as JSON")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    logs.add_argument("--slot", help="this slot's runners instead of the agent")
    logs.add_argument("--lines", type=int, default=LINES_DEFAULT, help="the newest (default 200)")
    logs.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    return parser


def _enroll(arguments: list[str]) -> int:
    command = [sys.executable, "-P", "-m", "edgeloop_agent.enrolment.main", *arguments]
    return subprocess.run(command, check=False).returncode


def _reset(options: argparse.Namespace) -> int:
    from edgeloop_agent.shell.factory_reset import reset, what_is_kept

    config = _config(options)
    kept = what_is_kept(config)
    if not kept:
        print(f"nothing is kept in {config.state_dir}")
        return ExitCode.OK
    if not options.yes:
        print("\n".join(f"  {path}" for path in kept))
        answer = input(f"Take all of this away? Type the device id, {config.device_id}: ")
        if answer.strip() != config.device_id:
            print("nothing was taken away")
            return ExitCode.FAILED
    reset(config)
    print(
        f"{config.device_id} keeps nothing any more; at the controller: `edgeloop device revoke "
        f"{config.device_id}`"
    )
    return ExitCode.OK


def _config(options: argparse.Namespace) -> AgentConfig:
    return load_config(AgentConfig, options.config)


def _run(options: argparse.Namespace) -> int:
    from edgeloop_agent.allocator import give_back_early, keep_one_heap
    from edgeloop_agent.shell.agent_log import configure_logging
    from edgeloop_agent.shell.compose import run_agent

    keep_one_heap()
    give_back_early()
    config = _config(options)
    configure_logging(config)
    run_agent(config, lambda: _config(options), options.config)
    return ExitCode.OK


def _doctor(options: argparse.Namespace) -> int:
    from edgeloop_agent.shell import doctor
    from edgeloop_agent.shell.finding import Verdict
    from edgeloop_protocol.clock import SystemClock

    logging.disable()  # what adapters would log is said in the findings
    try:
        findings = doctor.examine(options.config, SystemClock())
    finally:
        logging.disable(logging.NOTSET)
    as_json = json.dumps(doctor.as_document(findings), indent=1)
    print(as_json if options.json else doctor.as_words(findings))
    return {
        Verdict.FINE: ExitCode.OK,
        Verdict.WARNING: ExitCode.DOCTOR_WARNS,
        Verdict.FAILED: ExitCode.DOCTOR_FAILED,
    }[doctor.worst(findings)]


def _logs(options: argparse.Namespace) -> int:
    from edgeloop_agent.shell.diagnosis import log_path
    from edgeloop_agent.shell.log_tail import Follower, last_lines

    config = _config(options)
    if options.slot is not None and options.slot not in config.slots:
        raise ConfigError(f"no slot {options.slot!r}; there are {', '.join(config.slots)}")
    path = log_path(config.state_dir, options.slot)
    follower = Follower(path)
    for line in last_lines(path, options.lines):
        print(line)
    while options.follow:
        try:
            print(follower.new_text(), end="", flush=True)
            time.sleep(FOLLOW_EVERY_S)
        except KeyboardInterrupt:
            break
    return ExitCode.OK


def _systemd_unit(options: argparse.Namespace) -> int:
    from edgeloop_agent.shell.systemd_unit import unit_text

    print(unit_text(_config(options), options.config), end="")
    return ExitCode.OK


def _status(options: argparse.Namespace) -> int:
    """Shows the last status even when no agent runs, and says so by the exit code."""
    from edgeloop_agent.shell.status import read_status

    status = read_status(_config(options).state_dir)
    print(json.dumps(status, indent=1) if options.json else _in_words(status))
    return ExitCode.OK if status["running"] else ExitCode.NOT_RUNNING


def _in_words(status: dict[str, Any]) -> str:
    broker = "connected" if status["broker_connected"] else "not connected"
    running = f"running, pid {status['pid']}" if status["running"] else "not running"
    lines = [
        f"device    {status['device_id']} ({running})",
        f"broker    {broker}; desired revision {status['revision']}",
    ]
    if status.get("trust"):
        lines.append(f"trust     {status['trust']}")
    for slot in status["slots"]:
        lines.append(f"slot      {slot['slot']}: {slot['state']}{_versions(slot)}")
        if slot["waiting"]:
            lines.append(f"          waiting: {slot['waiting']}")
        if slot["refused"]:
            refused = slot["refused"]
            lines.append(f"          refused {_name(refused['version'])}: {refused['cause']}")
        confinement = status.get("confinement", {}).get(slot["slot"], {})
        lines += _challenger(slot)
        lines += [f"          runner: {done}" for done in confinement.get("done", ())]
        lines += [f"          runner not confined: {it}" for it in confinement.get("lacking", ())]
    outbox = status["outbox"]
    lines.append(
        f"outbox    {outbox['held']} records ({outbox['held_bytes']} bytes) wait to be "
        f"acknowledged, {outbox['dropped']} dropped"
    )
    given_up = _given_up(outbox)
    if given_up:
        lines.append(f"          full: {given_up}")
    return "\n".join(lines)


def _given_up(outbox: dict[str, Any]) -> str:
    """What a full outbox has merged, shed and dropped so far."""
    dropped = {kind: outbox.get(f"{kind}_dropped", 0) for kind in ("samples", "events")}
    counts = {
        "windows merged into others": outbox.get("merged", 0),
        "sketches shed": outbox.get("sketches_shed", 0),
        "samples dropped": dropped["samples"],
        "events dropped": dropped["events"],
        "windows dropped": outbox["dropped"] - sum(dropped.values()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _versions(slot: dict[str, Any]) -> str:
    runner = "" if slot["runner_alive"] else ", no runner serves"
    champion = f", runs {_name(slot['champion'])}" if slot["champion"] else ", no version yet"
    candidate = f", installs {_name(slot['candidate'])}" if slot["candidate"] else ""
    return champion + candidate + runner


def _challenger(slot: dict[str, Any]) -> list[str]:
    challenger = slot.get("challenger")
    if challenger is None:
        return []
    why = ": ".join(filter(None, (challenger["cause"], challenger["detail"])))
    why = why or challenger["waiting"]
    state = challenger["state"].replace("_", " ")
    return [
        f"          challenger: {_name(challenger['version'])}, {state}" + (why and f" ({why})")
    ]


def _name(version: dict[str, Any]) -> str:
    return f"{version['name']}@{version['version']}"


def _fail(error: Exception, code: ExitCode) -> int:
    print(f"edgeloop-agent: {error}", file=sys.stderr)
    return code


_COMMANDS: Final = {
    "run": _run,
    "status": _status,
    "doctor": _doctor,
    "logs": _logs,
    "reset": _reset,
    "systemd-unit": _systemd_unit,
}


if __name__ == "__main__":
    sys.exit(main())
