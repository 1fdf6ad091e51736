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
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any, Final

from edgeloop_agent.core.trust import Listed, Target
from edgeloop_agent.errors import TrustUnavailableError
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import KIB, MIB
from edgeloop_protocol.tls_config import TlsConfig

LOOK_UP_TIMEOUT_S: Final = 180.0
"""For metadata over a slow link; what came of it is kept, but for a document that came half."""
ANSWER_MAX_BYTES: Final = 1 * MIB
WORDS_MAX_BYTES: Final = 4 * KIB
_ONE_HEAP: Final = {"MALLOC_ARENA_MAX": "1"}
"""Its limit is of address space, of which each thread's heap would reserve 64 MiB."""


class TrustProcess:
    def __init__(
        self,
        directory: Path,
        root: Path,
        metadata_url: str,
        clock: Clock,
        timeout_s: float = LOOK_UP_TIMEOUT_S,
        tls: TlsConfig | None = None,
    ) -> None:
        """`directory`: of the metadata store; `root`: the bootstrap, read by the child each time;
        `clock`: whose wall clock expiry is compared with; `tls`: for https, its files read by the
        child each time; None: the system's authorities."""
        self._asks = {
            "directory": str(directory),
            "root": str(root),
            "url": metadata_url,
            "tls": _files_of(tls),
        }
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
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | _ONE_HEAP,
            )
        except OSError as error:
            problem = f"metadata: the verifier does not start: {error}"
            raise TrustUnavailableError(problem) from error
        limit = _Limit(child, self._timeout_s)
        with child, limit:
            said = _exchange(child, request)
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            why = limit.why or _why(child.returncode, said)
            raise TrustUnavailableError(f"metadata: {why}") from None
        return answer


def _files_of(tls: TlsConfig | None) -> dict[str, str | None] | None:
    if tls is None:
        return None
    paths = {"ca": tls.ca_path, "certificate": tls.certificate_path, "key": tls.key_path}
    return {what: None if path is None else str(path) for what, path in paths.items()}


class _Limit:
    """Ends the child after a while, and whenever what goes on with it is broken off."""

    def __init__(self, child: "subprocess.Popen[bytes]", timeout_s: float) -> None:
        self._child = child
        self._timeout_s = timeout_s
        self._timer = Timer(timeout_s, self._expire)
        self._timer.daemon = True
        self.why = ""

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if kind is not None:
            self._child.kill()

    def _expire(self) -> None:
        self.why = f"not verified within {self._timeout_s:g} s"
        self._child.kill()


def _exchange(child: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    """One line, or what the child said at its end in place of one; it has ended then."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    with suppress(OSError):  # it may have ended already: what it said is read below
        child.stdin.write(request)
        child.stdin.flush()
    said = child.stdout.readline(ANSWER_MAX_BYTES)
    with suppress(OSError):
        child.stdin.close()
    child.wait()
    # No more than a pipe holds, and it has ended.
    return said or os.read(child.stderr.fileno(), 1 << 16)[-WORDS_MAX_BYTES:]


def _why(code: int, said: bytes) -> str:
    if code < 0:
        return f"the verifier was ended by {signal.Signals(-code).name}"
    words = said[-WORDS_MAX_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]
    return words or f"the verifier ended with code {code}"
