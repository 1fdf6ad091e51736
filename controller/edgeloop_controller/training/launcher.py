"""Stands between the controller and a training script, and takes the script's group with it.

Usage: python launcher.py MEMORY_MAX_BYTES COMMAND...
It ends with the command's exit code (128 + n for signal n). When its stdin closes, because the
controller stops the run or was killed itself, it kills the command's process group.

Invariants: imports the standard library only; the command's processes never outlive it.
"""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys


def main(memory_max_bytes: int, command: list[str]) -> int:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_max_bytes, memory_max_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    # This process has one thread, so that running `limit` between fork and exec is safe.
    script = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=limit,
    )
    ended = os.pidfd_open(script.pid)
    try:
        select.select([sys.stdin.fileno(), ended], [], [])
    finally:
        # Reaped only afterwards, so that the group's number cannot have been given to others.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        code = script.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
