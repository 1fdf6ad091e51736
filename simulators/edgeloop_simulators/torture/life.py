"""One life of an agent under torture, in a child that can be stopped, looked at and killed.

Invariant: the child waits after each promise until it may go on, so that whoever tortures it can
strike exactly there.
"""

import contextlib
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Final

from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.torture.promises import Ledger
from edgeloop_simulators.torture.subject import Goal, run
from edgeloop_simulators.torture.versions import Shelf

SILENT_S_MAX: Final = 60.0
"""An agent that promises nothing for so long is wedged."""
_READ_BYTES: Final = 64 * 1024


class Life:
    """A fork of this process, which must have no other thread."""

    def __init__(self, state_dir: Path, shelf: Shelf, goal: Goal, ledger: Ledger) -> None:
        self.ledger = ledger
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ours_in)
            os.close(ours_out)
            os._exit(_live(state_dir, shelf, goal, theirs_out, theirs_in))
        os.close(theirs_out)
        os.close(theirs_in)
        self._in, self._out = ours_in, ours_out
        self._lines = b""
        self._status: int | None = None

    def promise(self) -> bool:
        """Wait for the next promise and take it down; False: the life has ended. The agent then
        waits for `go_on`. Raises SimulatorError when it says nothing for too long."""
        while b"\n" not in self._lines:
            readable, _, _ = select.select([self._in], [], [], SILENT_S_MAX)
            if not readable:
                raise SimulatorError(f"the agent promised nothing for {SILENT_S_MAX:g} s")
            chunk = os.read(self._in, _READ_BYTES)
            if not chunk:
                return False
            self._lines += chunk
        line, _, self._lines = self._lines.partition(b"\n")
        self.ledger.take(line.decode())
        return True

    def go_on(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._out, b".")

    def stop(self) -> bool:
        """Stop it wherever it is; True: it had promised something that it waits for."""
        os.kill(self._pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        readable, _, _ = select.select([self._in], [], [], 0)
        return bool(readable) and self.promise()

    def resume(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def live_out(self) -> int:
        """Undisturbed to its end; its exit status."""
        while self.promise():
            self.go_on()
        return self._bury(os.waitpid(self._pid, 0)[1])

    def end(self) -> int:
        """Its exit status; killed if it is not over."""
        if self._status is not None:
            return self._status
        os.kill(self._pid, signal.SIGKILL)
        return self._bury(os.waitpid(self._pid, 0)[1])

    def _bury(self, status: int) -> int:
        os.close(self._in)
        os.close(self._out)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status


def _live(state_dir: Path, shelf: Shelf, goal: Goal, out: int, may_go_on: int) -> int:
    def tell(line: str) -> None:
        os.write(out, line.encode() + b"\n")
        if not os.read(may_go_on, 1):
            os._exit(0)  # nobody tortures any more

    try:
        return run(state_dir, shelf, goal, tell, quick=True)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
