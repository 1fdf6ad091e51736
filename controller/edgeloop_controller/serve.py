"""`edgeloop serve`: the process. Takes its port and its directory, serves, stops on a signal.

Invariants: one controller a data directory; a port that is in use is an error before anything is
started; SIGTERM and SIGINT stop everything in order.
"""

import fcntl
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn

from edgeloop_controller.api.app import create_app
from edgeloop_controller.api.context import Services
from edgeloop_controller.api.peer import PeerProtocol
from edgeloop_controller.composition import running
from edgeloop_controller.config import ControllerConfig, HttpConfig
from edgeloop_controller.errors import StartError
from edgeloop_protocol.log_lines import OneLineFormatter

logger = logging.getLogger(__name__)

REQUESTS_END_S: Final = 5
HTTP_BACKLOG: Final = 1024


def serve(config: ControllerConfig, config_path: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError."""
    _configure_logging(config.log_level)
    with ExitStack() as stack:
        _make_directory(config.data_dir)
        stack.enter_context(_only_one(config.data_dir))
        listening = stack.enter_context(_listen(config.http))
        host, port = listening.getsockname()[:2]
        stop = _Stop()
        stack.enter_context(stop.on_signals())
        services = stack.enter_context(running(config, config_path))
        uvicorn_config = uvicorn.Config(
            create_app(services),
            http=PeerProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            # The audit log keeps the peer's address: any local process can claim another.
            proxy_headers=False,
            timeout_graceful_shutdown=REQUESTS_END_S,
        )
        if services.http_tls is not None:
            uvicorn_config.load()
            uvicorn_config.ssl = services.http_tls.context
        server = _Server(uvicorn_config)
        stop.server = server
        _say_who_may_come_in(services)
        gc.freeze()  # what stands now stands until the end: a collection need not walk through it
        scheme = "http" if services.http_tls is None else "https"
        logger.info("serving on %s://%s:%d, data in %s", scheme, host, port, config.data_dir)
        server.run(sockets=[listening])
        logger.info("stopping")


def _say_who_may_come_in(services: Services) -> None:
    if not services.people.required:
        logger.info("nobody is asked who they are ([access] require): loopback's names only")
    elif services.config.access.oidc is None and not services.people.has_token():
        logger.warning(
            "nobody has a token yet: edgeloop token create NAME --role admin --config FILE"
        )


@contextmanager
def _listen(config: HttpConfig) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((config.host, config.port))
            listening.listen(HTTP_BACKLOG)
        except OSError as error:
            raise StartError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror}",
                hint="stop what uses the port, or set [http] port to a free one",
            ) from error
        yield listening


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot make the data directory {directory}: {error.strerror}",
            hint="set data_dir to a directory that this user may write",
        ) from error


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """A lock that the kernel lets go when the process ends, however it ends."""
    try:
        descriptor = os.open(directory / "controller.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StartError(f"cannot write in {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise StartError(
            f"another controller uses {directory}",
            hint="stop it, or set another data_dir",
        ) from error
    finally:
        os.close(descriptor)


class _Server(uvicorn.Server):
    """uvicorn re-raises the signals that it caught, which would cut our own stopping short."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stop:
    """SIGTERM and SIGINT end the server; a signal before it runs ends the start."""

    def __init__(self) -> None:
        self.server: _Server | None = None
        self._asked = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, _number: int, _frame: Any) -> None:
        if self.server is None:
            raise KeyboardInterrupt
        if self._asked:
            self.server.force_exit = True
        self._asked = True
        self.server.should_exit = True


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("httpx", "alembic", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
