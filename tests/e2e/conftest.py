"""Runs of the testbed as a user starts them, and every process that was seen in one."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

SIM = Path(sys.executable).parent / "edgeloop-sim"


@dataclass(frozen=True)
class Seen:
    """A process as it was while it lived; what it is afterwards nobody can say."""

    process: psutil.Process
    parent_pid: int
    command: tuple[str, ...]


@dataclass
class Run:
    """`edgeloop-sim run` as a user starts it; remembers every process that it had started."""

    scenario: str
    out: Path
    pid: int = 0
    seen: set[Seen] = field(default_factory=set)

    def start(self) -> subprocess.Popen[str]:
        command = [str(SIM), "run", self.scenario, "--out", str(self.out)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pid = process.pid
        threading.Thread(target=self._watch, args=(psutil.Process(process.pid),)).start()
        return process

    def _watch(self, process: psutil.Process) -> None:
        while _lives(process):
            try:
                for child in process.children(recursive=True):
                    self._look_at(child)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.2)

    def _look_at(self, process: psutil.Process) -> None:
        """A process is seen again when it has become another program (exec)."""
        with suppress(psutil.NoSuchProcess):
            self.seen.add(Seen(process, process.ppid(), tuple(process.cmdline())))

    def agents(self) -> dict[str, set[int]]:
        """The process ids of each device's agent, by its configuration file."""
        found: dict[str, set[int]] = {}
        for one in tuple(self.seen):
            program = {Path(word).name for word in one.command[:2]}
            if one.parent_pid == self.pid and "edgeloop-agent" in program:
                found.setdefault(one.command[-1], set()).add(one.process.pid)
        return found

    def runners(self) -> dict[int, set[int]]:
        """The process ids of runners, by the process that started them."""
        found: dict[int, set[int]] = {}
        for one in tuple(self.seen):
            if "edgeloop_agent.runner" in one.command:
                found.setdefault(one.parent_pid, set()).add(one.process.pid)
        return found

    def left(self) -> list[psutil.Process]:
        return [p for p in {one.process for one in tuple(self.seen)} if _lives(p)]

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "summary.json").read_text()))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Finished:
    run: Run
    exit_code: int
    output: str

    @property
    def summary(self) -> dict[str, Any]:
        return self.run.summary()


def _play(scenario: str, out: Path, timeout_s: float) -> Finished:
    run = Run(scenario, out)
    process = run.start()
    try:
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return Finished(run, process.returncode, output)


@pytest.fixture(scope="session")
def run_of() -> Callable[[str, Path], Run]:
    """A run of a scenario into a directory, not started yet."""
    return Run


@pytest.fixture(scope="session")
def play() -> Callable[[str, Path, float], Finished]:
    """Run a scenario into a directory to its end; kill it after so many seconds."""
    return _play
