"""The systemd unit of this very installation: `edgeloop-agent systemd-unit --config agent.toml`.

Invariants: the paths are those of the interpreter and the configuration that it was asked with; a
loop that hangs is restarted by the watchdog; stopping takes less than systemd waits.
"""

import sys
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig, JsonlSink

WATCHDOG_S: Final = 30
STOP_S: Final = 20
RESTART_S: Final = 2

_UNIT: Final = """\
[Unit]
Description=Edgeloop device agent ({device_id})
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m edgeloop_agent.cli run --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec={restart_s}
WatchdogSec={watchdog_s}
TimeoutStopSec={stop_s}
KillMode=mixed
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}

[Install]
WantedBy=multi-user.target
"""


def unit_text(config: AgentConfig, config_path: Path) -> str:
    return _UNIT.format(
        device_id=config.device_id,
        python=_quoted(Path(sys.executable)),
        config=_quoted(config_path.absolute()),
        restart_s=RESTART_S,
        watchdog_s=WATCHDOG_S,
        stop_s=STOP_S,
        writable=" ".join(_quoted(path) for path in _writable(config)),
    )


def _writable(config: AgentConfig) -> list[Path]:
    """The state directory, which must be there, and where sinks write."""
    sinks = [
        slot.sink.path.parent for slot in config.slots.values() if isinstance(slot.sink, JsonlSink)
    ]
    return list(dict.fromkeys([Path(config.state_dir), *sinks]))


def _quoted(path: Path) -> str:
    """systemd's own quoting; `%` is its specifier, `$` its variable."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(it in text for it in " \t'\"\\") else text
