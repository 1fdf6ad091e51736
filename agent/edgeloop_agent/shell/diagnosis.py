"""What a device shows of itself on request: its logs, its status; and that it renews."""

from collections.abc import Callable
from pathlib import Path

from edgeloop_agent.shell.agent_log import agent_log_path
from edgeloop_agent.shell.log_tail import last_lines
from edgeloop_agent.shell.runner_log import runner_log_path
from edgeloop_agent.shell.status import FILE_NAME as STATUS_NAME
from edgeloop_protocol.messages import Ask, Request


class Diagnosis:
    """`__call__` is a `requests.Diagnose`. Quick: it reads two files of half a megabyte at most."""

    def __init__(self, state_dir: Path, renew: Callable[[], str] | None = None) -> None:
        """`renew`: ask for a new certificate; None: this device has none that it renews."""
        self._state_dir = state_dir
        self._renew = renew

    def __call__(self, request: Request) -> str:
        if request.asks == Ask.RENEW_CERTIFICATE:
            return self._renew() if self._renew else "this device has no [identity] to renew"
        if request.asks == Ask.STATUS:
            return (self._state_dir / STATUS_NAME).read_text(encoding="utf-8", errors="replace")
        return "\n".join(last_lines(log_path(self._state_dir, request.slot), request.lines_max))


def log_path(state_dir: Path, slot: str | None) -> Path:
    """The agent's log, or that of a slot's runners."""
    return agent_log_path(state_dir) if slot is None else runner_log_path(state_dir, slot)
