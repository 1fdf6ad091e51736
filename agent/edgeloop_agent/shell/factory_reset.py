"""`edgeloop-agent reset`: everything that the agent keeps on this device goes.

Invariants: never while an agent runs on the state directory; only what the agent makes is taken
away, by name, so that a state_dir that names another directory loses nothing else; keys go first. A
flash medium may keep old blocks: what must not be read again is to be revoked at the controller.
"""

import fnmatch
import os
import shutil
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell import lock
from edgeloop_agent.shell.lock import StateDirLock

MADE_BY_THE_AGENT: Final = (
    "trust",
    "models",
    "journal.json*",
    "outbox.sqlite*",
    "status.json*",
    "time-floor.json*",
    "runtimes.json*",
    "agent.log*",
    "runner-*.log*",
)
"""In the state directory, beside the identity's directory."""


def what_is_kept(config: AgentConfig) -> list[Path]:
    """In the order in which it is taken away."""
    state_dir = Path(config.state_dir)
    identity = [config.identity_dir] if config.identity_dir.is_dir() else []
    if not state_dir.is_dir():
        return identity
    names = sorted(path.name for path in state_dir.iterdir())
    found = [name for name in names if _is_ours(name) and state_dir / name not in identity]
    return identity + [state_dir / name for name in found]


def reset(config: AgentConfig) -> None:
    """Raises StateDirInUseError, OSError."""
    state_dir = Path(config.state_dir)
    held = StateDirLock(state_dir) if state_dir.is_dir() else None
    try:
        for path in what_is_kept(config):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            _sync(path.parent)
        if held is not None:
            (state_dir / lock.FILE_NAME).unlink(missing_ok=True)
    finally:
        if held is not None:
            held.release()


def _is_ours(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in MADE_BY_THE_AGENT)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
