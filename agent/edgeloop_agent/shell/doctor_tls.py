"""The doctor's checks of the files for TLS to the broker, before anything is connected."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeloop_agent.shell.certificate_dates import valid_between
from edgeloop_agent.shell.finding import Finding, failed, warning
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.tls import TlsFileError, client_context
from edgeloop_protocol.tls_config import TlsConfig

NAME: Final = "broker tls"
RENEW_BEFORE_S: Final = 14 * 86_400.0
RENEW_BEFORE_SHARE: Final = 0.25
"""Of its life: one that renews itself does so before, with a third left."""


def files(config: TlsConfig, clock: Clock) -> Iterator[Finding]:
    """Only what is not fine."""
    try:
        client_context(config)
    except TlsFileError as error:
        yield failed(NAME, error.problem.words, error.problem.mend)
        return
    if config.certificate_path is not None:
        yield from _dates(config.certificate_path, clock.wall())
        key = config.key_path or config.certificate_path
        if key.stat().st_mode & stat.S_IROTH:
            yield warning(NAME, f"everybody can read the key in {key}", f"chmod 600 {key}")


def _dates(path: Path, now: float) -> Iterator[Finding]:
    try:
        begins, ends = valid_between(path.read_text(encoding="ascii", errors="replace"))
    except (ValueError, IndexError) as error:
        yield warning(NAME, f"{path}: its dates cannot be read: {error}", "ask your authority")
        return
    renew = "renew it at your authority, and put the new one there: no restart is needed"
    if now < begins:
        yield failed(
            NAME,
            f"{path} is valid from {_day(begins)} on, and the clock here stands at {_day(now)}",
            "set the clock; where it is right, wait",
        )
    elif now >= ends:
        yield failed(
            NAME,
            f"{path} has expired on {_day(ends)}; the clock here stands at {_day(now)}",
            renew,
        )
    elif now >= ends - min(RENEW_BEFORE_S, (ends - begins) * RENEW_BEFORE_SHARE):
        yield warning(NAME, f"{path} expires on {_day(ends)}", renew)


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
