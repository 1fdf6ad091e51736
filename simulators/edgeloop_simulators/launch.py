"""Start a program that ends when its parent does: `python -I -S launch.py PROGRAM ARGUMENT…`.

The kernel sends this process SIGTERM when its parent thread dies, however it dies (prctl(2),
PR_SET_PDEATHSIG, kept over exec), so a testbed that is killed with -9 leaves nothing behind. Done
in a small program of its own because running Python between fork and exec in a process with
threads may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()
