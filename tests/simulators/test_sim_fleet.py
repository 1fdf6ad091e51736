"""Processes of a run end with it, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.fleet import Process, free_ports
from edgeloop_simulators.testbed import Interrupted, interruptible

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_process_that_ended_by_itself_is_named_with_its_log(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    process = Process("agent d0", [sys.executable, "-c", "exit('no broker')"], tmp_path)
    wait_until(lambda: process.popen.poll() is not None)
    with pytest.raises(FleetError, match=r"agent d0 ended with code 1; .*\n.*no broker"):
        process.check()


def test_what_does_not_go_is_killed_with_its_children(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    stubborn = textwrap.dedent("""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)
    """)
    process = Process("stubborn", [sys.executable, "-c", stubborn], tmp_path)
    wait_until(lambda: process.log.read_text().endswith("\n"))
    child = int(process.log.read_text())
    process.signal(signal.SIGTERM)
    process.end(time.monotonic() + 0.2)
    assert process.popen.poll() == -signal.SIGKILL
    wait_until(lambda: not psutil.pid_exists(child) or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_nothing_is_left_when_the_testbed_is_killed(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    testbed = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from edgeloop_simulators.fleet import Process
        process = Process("sleeper", {SLEEP!r}, Path({str(tmp_path)!r}))
        print(process.popen.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", testbed], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: "sleep(600)" in " ".join(psutil.Process(child).cmdline()[-1:]))
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(child) or _is_zombie(child))


def test_edgeloop_variables_do_not_reach_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setenv("EDGELOOP_BROKER__PORT", "1")
    show = "import os; print([k for k in os.environ if k.startswith('EDGELOOP')], 'end')"
    process = Process("p", [sys.executable, "-c", show], tmp_path)
    process.end(time.monotonic() + 20)
    assert process.log.read_text() == "[] end\n"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_once_and_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name):
        _interrupted_twice(number)
    assert signal.getsignal(number) == before


def _interrupted_twice(number: signal.Signals) -> None:
    with interruptible():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # a second one does not break the taking down
