"""The agent's own log: to stderr, and to a bounded file in the state directory.

Invariants: one record is one line, in JSON one document; what cannot be written is lost and stops
nobody; `configure_logging` may be called again, with another configuration, while the agent runs.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell.bounded_log import BoundedLog
from edgeloop_protocol.log_lines import OneLineFormatter

FILE_NAME: Final = "agent.log"


def agent_log_path(state_dir: Path) -> Path:
    return state_dir / FILE_NAME


def configure_logging(config: AgentConfig) -> None:
    handlers = (
        logging.StreamHandler(sys.stderr),
        _FileHandler(BoundedLog(agent_log_path(config.state_dir))),
    )
    formatter = _formatter(config)
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=config.log_level.upper(), handlers=handlers, force=True)


class JsonFormatter(logging.Formatter):
    """Keys (stable): at (seconds since 1970), level, device, logger, message, and exception."""

    def __init__(self, device_id: str) -> None:
        super().__init__()
        self._device_id = device_id

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "device": self._device_id,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _formatter(config: AgentConfig) -> logging.Formatter:
    if config.log_format == "json":
        return JsonFormatter(config.device_id)
    return OneLineFormatter(f"%(asctime)s %(levelname)s {config.device_id} %(name)s: %(message)s")


class _FileHandler(logging.Handler):
    def __init__(self, log: BoundedLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        self._log.write(line.encode(errors="replace"))
