"""Looks metadata up in a child process (`edgeloop_agent.trust.main`), the way of Trust.

Invariants: whatever happens to the child, the supervisor has an answer or a TrustUnavailableError
within LOOK_UP_TIMEOUT_S; it imports none of what verifies signatures.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import Any, Final

from edgeloop_agent.core.trust import Listed, Target
from edgeloop_agent.errors import TrustUnavailableError
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import KIB, MIB

LOOK_UP_TIMEOUT_S: Final = 180.0
"""For metadata over a slow link; what came of it is kept, but for a document that came half."""
ANSWER_MAX_BYTES: Final = 1 * MIB
WORDS_MAX_BYTES: Final = 4 * KIB


class TrustProcess:
    def __init__(
        self,
        directory: Path,
        root: Path,
        metadata_url: str,
        clock: Clock,
        timeout_s: float = LOOK_UP_TIMEOUT_S,
    ) -> None:
        """`directory`: of the metadata store; `root`: the bootstrap, read by the child each time;
        `clock`: whose wall clock expiry is compared with."""
        self._asks = {"directory": str(directory), "root": str(root), "url": metadata_url}
        self._clock = clock
        self._timeout_s = timeout_s

    def look_up(self, names: Sequence[str]) -> Listed:
        request = {**self._asks, "now": self._clock.wall(), "targets": list(names)}
        answer = self._ask(json.dumps(request).encode() + b"\n")
        if "problem" in answer:
            raise TrustUnavailableError(f"metadata: {answer['problem']}")
        return {
            name: Target(found["length"], found["hashes"], found["custom"])
            for name, found in answer["targets"].items()
        }

    def _ask(self, request: bytes) -> dict[str, Any]:
        command = [sys.executable, "-P", "-m", "edgeloop_agent.trust.main"]
        try:
            # stdin stays open as long as this process lives: the child ends with it.
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise TrustUnavailableError(
                f"metadata: the verifier does not start: {error}"
            ) from error
        with child:
            timer = Timer(self._timeout_s, child.kill)
            timer.daemon = True
            timer.start()
            try:
                said = _exchange(child, request)
            except BaseException:
                child.kill()
                raise
            finally:
                timer.cancel()
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            why = self._why(child.returncode, said)
            raise TrustUnavailableError(f"metadata: {why}") from None
        return answer

    def _why(self, code: int, said: bytes) -> str:
        if code == -signal.SIGKILL:
            return f"not verified within {self._timeout_s:g} s"
        if code < 0:
            return f"the verifier was ended by {signal.Signals(-code).name}"
        words = said.decode(errors="replace").strip().rpartition("\n")[2]
        return words or f"the verifier ended with code {code}"


def _exchange(child: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    """One line, or what the child said at its end in place of one."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        child.stdin.write(request)
        child.stdin.flush()
    except OSError:
        pass  # it has ended: what it said is read below
    said = child.stdout.readline(ANSWER_MAX_BYTES)
    if not said:
        child.wait()
        # No more than a pipe holds, and it has ended.
        said = os.read(child.stderr.fileno(), 1 << 16)[-WORDS_MAX_BYTES:]
    return said
