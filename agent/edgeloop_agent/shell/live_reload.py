"""SIGHUP: the configuration is read again, and what can be changed live is.

Invariant: a file that cannot be used changes nothing, and is said in the log and to the controller.
"""

import logging
from collections.abc import Callable

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell.agent_log import configure_logging
from edgeloop_agent.shell.reload import plan
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.limits import TEXT_MAX_CHARS

logger = logging.getLogger(__name__)


class LiveReload:
    """Called by the supervisor's own loop."""

    def __init__(
        self,
        supervisor: Supervisor,
        parts: Parts,
        use: Callable[[AgentConfig], None],
        read_config: Callable[[], AgentConfig],
    ) -> None:
        """`use`: the new configuration, for the adapters that follow one."""
        self._supervisor = supervisor
        self._parts = parts
        self._use = use
        self._read_config = read_config

    def __call__(self) -> None:
        telemetry = self._parts.telemetry
        try:
            new = self._read_config()
        except ConfigError as error:
            logger.error("the configuration is not reloaded, the old one holds: %s", error)
            telemetry.event("config_refused", detail=str(error)[:TEXT_MAX_CHARS])
            return
        reload = plan(self._parts.config, new)
        configure_logging(reload.config)
        self._use(reload.config)
        self._supervisor.reconfigure(reload.config, reload.restart_slots)
        logger.info("the configuration is reloaded: %s", reload.in_words())
        telemetry.event("config_reloaded", detail=reload.in_words()[:TEXT_MAX_CHARS])
