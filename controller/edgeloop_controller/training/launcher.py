"""Stands between the controller and a training script, and takes the script's group with it.

Usage: python launcher.py TERMS COMMAND... with TERMS as JSON: memory_max_bytes; hidden and shown,
lists of paths; packages, the directory from which landlock is imported.
It ends with the command's exit code (128 + n for signal n). When its stdin closes, because the
controller stops the run or was killed itself, it kills the command's process group.

Invariants: imports the standard library and `edgeloop_protocol.landlock` only, which is made of it;
the command's processes never outlive it; what is hidden from the command stays so for whatever it
starts. Where the kernel hides nothing, it says so in the first line of the log and goes on.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_PR_CAPBSET_DROP: Final = 24
_LOOKING: Final = (19, 21, 38)
"""CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON: root reads others' memory and environment by them,
Landlock or not."""


def give_up_looking() -> None:
    """From the next exec on, also where the controller is root; others have nothing to give up."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _LOOKING:
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def main(terms: dict[str, Any], command: list[str]) -> int:
    memory_max_bytes = terms["memory_max_bytes"]
    sys.path.insert(0, terms["packages"])
    from edgeloop_protocol import landlock

    hidden, shown = [*map(Path, terms["hidden"])], [*map(Path, terms["shown"])]
    hides = bool(hidden) and landlock.abi() > 0
    if hidden and not hides:
        print("(this kernel has no Landlock: the controller's files are not hidden)", flush=True)

    def limit() -> None:
        if hides:
            give_up_looking()
            landlock.hide(hidden, shown)
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
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
