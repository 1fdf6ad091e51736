"""Runner processes: started with a socketpair, listened to by one thread each, ended on demand.

Invariants: a runner's every word is bounded and posted to the supervisor's queue; exactly one
RunnerExited follows each start, after its last word; a runner that floods slows only itself.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    Event,
    Progress,
    RunnerExited,
    RunnerLoading,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.endpoints import SlotEndpoint, endpoint_of
from edgeloop_agent.errors import RunnerLineError
from edgeloop_agent.lines import LineSplitter
from edgeloop_agent.ports import Post, RunnerSaid
from edgeloop_agent.runner_protocol import (
    CaptureLine,
    ConfinedLine,
    DropShadowLine,
    FromRunner,
    GoLine,
    HeartbeatLine,
    MirrorLine,
    ModelFiles,
    SelfTestedLine,
    ServingLine,
    StartChallengerLine,
    StartLine,
    StopLine,
    decode_from_runner,
    encode_line,
)
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_log import Tail, runner_log
from edgeloop_protocol.limits import RUNNER_LINE_MAX_BYTES, TEXT_MAX_CHARS
from edgeloop_protocol.messages import VersionRef

logger = logging.getLogger(__name__)

READ_CHUNK_BYTES: Final = 64 * 1024
SEND_TIMEOUT_S: Final = 1.0
_ONE_THREAD: Final[Mapping[str, str]] = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(slots=True)
class _Child:
    slot: str
    number: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    version: VersionRef
    answers: bool
    confinement: ConfinedLine | None = None


class RunnerProcesses:
    def __init__(self, config: AgentConfig, disk: OsDisk, post: Post) -> None:
        self._config = config
        self._disk = disk
        self._post = post
        self._children: dict[tuple[str, int], _Child] = {}
        self._lock = threading.Lock()
        self._endpoints = {
            slot: endpoint
            for slot, one in config.slots.items()
            if (endpoint := endpoint_of(one.source)) is not None
        }
        self._logs = {slot: runner_log(Path(config.state_dir), slot) for slot in config.slots}

    def use(self, config: AgentConfig) -> None:
        """For the runners that are started from now on."""
        self._config = config

    def start(self, effect: StartRunner) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(SEND_TIMEOUT_S)
        endpoint = self._endpoints.get(effect.slot) if effect.budget is None else None
        inherited = endpoint.descriptors() if endpoint else ()
        command = [sys.executable, "-P", "-m", "edgeloop_agent.runner"]
        with theirs:
            process = subprocess.Popen(
                [*command, "--fd", str(theirs.fileno()), "--parent", str(os.getpid())],
                pass_fds=(theirs.fileno(), *inherited),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ONE_THREAD},
            )
        answers = effect.budget is None
        child = _Child(effect.slot, effect.runner, process, ours, effect.version, answers)
        with self._lock:
            self._children[effect.slot, effect.runner] = child
        logger.info(
            "slot %s: runner %d starts for %s (pid %d)",
            effect.slot,
            effect.runner,
            effect.version,
            process.pid,
        )
        threading.Thread(
            target=self._listen, args=(child,), name=f"runner-{effect.slot}", daemon=True
        ).start()
        self._send(child, self._start_line(effect, endpoint))

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        source, reader = self._child(slot, runner), self._child(slot, challenger)
        if source is None or reader is None:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            line = MirrorLine(champion=source.version)
            self._send(source, line, ours)
            self._send(reader, line, theirs)

    def go(self, slot: str, runner: int) -> None:
        self._tell(slot, runner, GoLine())

    def drop_shadow(self, slot: str, runner: int) -> None:
        self._tell(slot, runner, DropShadowLine())

    def capture(self, slot: str, runner: int, examples: int) -> None:
        self._tell(slot, runner, CaptureLine(examples=examples))

    def stop(self, slot: str, runner: int, kill: bool) -> None:
        if not kill:
            self._tell(slot, runner, StopLine())
        elif child := self._child(slot, runner):
            child.process.kill()

    def stop_all(self, kill: bool) -> None:
        with self._lock:
            numbers = list(self._children)
        for slot, runner in numbers:
            self.stop(slot, runner, kill)

    def pid(self, slot: str, runner: int) -> int | None:
        child = self._child(slot, runner)
        return child.process.pid if child else None

    def confinement(self) -> dict[str, ConfinedLine]:
        """By slot, of the runner that was started last and is no challenger's: what it gave up,
        and what it could not."""
        with self._lock:
            children = sorted(self._children.values(), key=lambda child: child.number)
        return {
            child.slot: child.confinement
            for child in children
            if child.confinement and child.answers
        }

    def alive(self) -> int:
        with self._lock:
            return len(self._children)

    def _child(self, slot: str, runner: int) -> _Child | None:
        with self._lock:
            return self._children.get((slot, runner))

    def _start_line(self, effect: StartRunner, endpoint: SlotEndpoint | None) -> BaseModel:
        config, telemetry = self._config.slots[effect.slot], self._config.telemetry
        if effect.budget is not None:
            return StartChallengerLine(
                slot=effect.slot,
                model=self._files(effect.version),
                budget=effect.budget,
                runner=config.runner,
                telemetry=telemetry,
                memory_max_bytes=effect.memory_max_bytes,
            )
        return StartLine(
            slot=effect.slot,
            model=self._files(effect.version),
            shadow=self._files(effect.shadow) if effect.shadow else None,
            config=config,
            telemetry=telemetry,
            memory_max_bytes=effect.memory_max_bytes,
            endpoint=endpoint.line() if endpoint else None,
        )

    def _files(self, version: VersionRef) -> ModelFiles:
        return ModelFiles(
            version=version,
            manifest_path=str(self._disk.path(manifest_path(version.manifest_digest))),
            model_path=str(self._disk.path(model_path(version.manifest_digest))),
        )

    def _tell(self, slot: str, runner: int, message: BaseModel) -> None:
        if child := self._child(slot, runner):
            self._send(child, message)

    def _send(
        self, child: _Child, message: BaseModel, with_socket: socket.socket | None = None
    ) -> None:
        """A runner that does not even read its control lines hangs: it is killed."""
        line = encode_line(message)
        try:
            if with_socket is not None:
                sent = socket.send_fds(child.connection, [line], [with_socket.fileno()])
                line = line[sent:]
            child.connection.sendall(line)
        except OSError:
            child.process.kill()

    def _listen(self, child: _Child) -> None:
        tail = Tail()
        try:
            self._hear_until_gone(child, tail)
        finally:
            code = child.process.wait()
            child.connection.close()
            if child.process.stdout:
                child.process.stdout.close()
            with self._lock:
                del self._children[child.slot, child.number]
            detail = _how_it_ended(code, tail)[:TEXT_MAX_CHARS]
            self._post(RunnerExited(child.slot, child.number, detail))

    def _hear_until_gone(self, child: _Child, tail: Tail) -> None:
        log, lines = self._logs[child.slot], LineSplitter(RUNNER_LINE_MAX_BYTES)
        printed = child.process.stdout
        assert printed is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.connection, selectors.EVENT_READ)
            selector.register(printed, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    chunk = _read(key.fd)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is printed:
                        log.write(chunk)
                        tail.write(chunk)
                    else:
                        for line in lines.feed(chunk):
                            self._heard(child, line)

    def _heard(self, child: _Child, line: bytes | None) -> None:
        try:
            said = decode_from_runner(line)
        except RunnerLineError as error:
            logger.warning("slot %s: runner %d: %s", child.slot, child.number, error)
            return
        if isinstance(said, ConfinedLine):
            child.confinement = said
            for lacking in said.lacking:
                logger.warning("slot %s: runner %d: %s", child.slot, child.number, lacking)
        self._post(_event(child.slot, child.number, said))


def _event(slot: str, number: int, said: FromRunner) -> Event | RunnerSaid:
    if isinstance(said, ConfinedLine):
        return RunnerLoading(slot, number)
    if isinstance(said, SelfTestedLine):
        return RunnerSelfTested(slot, number, said.passed, said.detail)
    if isinstance(said, ServingLine):
        return RunnerServing(slot, number)
    if isinstance(said, HeartbeatLine):
        return RunnerProgressed(slot, number, Progress(**said.model_dump(exclude={"kind"})))
    return RunnerSaid(slot, said)


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):
        return os.read(descriptor, READ_CHUNK_BYTES)
    return b""


def _how_it_ended(code: int, tail: Tail) -> str:
    if code < 0:
        try:
            how = f"killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"killed by signal {-code}"
    else:
        how = f"exit status {code}"
    words = tail.last_line()
    return f"{how}: {words}" if words else how
