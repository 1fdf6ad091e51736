"""Where a part of a world runs: in this process, or in one of its own.

Invariants: one question, one answer; a part that fails takes the world with it, with its own words;
no process is left behind.
"""

import gc
import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, Protocol

import psutil

from edgeloop_protocol.limits import KIB
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.virtual.parts.exchange import Answer, Asked, Ending, Part

COLLECT_AFTER: Final = (50_000, 20, 100)
"""Python's own looks through a fleet again and again, nearly all of which stays to the end."""

MakePart = Callable[[], Part]


class PartRun(Protocol):
    """`ask`, then `answer`; after the last answer `ending`, then `close`."""

    def ask(self, asked: Asked) -> None: ...

    def answer(self) -> Answer:
        """Of what was asked last; waits for it. Raises SimulatorError."""

    def ending(self) -> Ending: ...

    def close(self) -> None: ...


class RunHere:
    """In this process: runs when it is asked."""

    def __init__(self, make: MakePart) -> None:
        self._part = make()
        self._answer = Answer()

    def ask(self, asked: Asked) -> None:
        self._answer = self._part.advance(asked)

    def answer(self) -> Answer:
        return self._answer

    def ending(self) -> Ending:
        return Ending(self._part.finish())

    def close(self) -> None:
        self._part.close()


class RunForked:
    """In a child of this process, which must have no other thread."""

    def __init__(self, make: MakePart) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, asked: Asked) -> None:
        self._pipe.send(asked)

    def answer(self) -> Answer:
        answer = self._receive()
        assert isinstance(answer, Answer)
        return answer

    def ending(self) -> Ending:
        self._pipe.send(None)
        ending = self._receive()
        assert isinstance(ending, Ending)
        return ending

    def close(self) -> None:
        """Killed, not asked: a part keeps nothing, and its later sisters hold its pipe open."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _receive(self) -> object:
        try:
            received = self._pipe.recv()
        except EOFError as error:
            raise SimulatorError("a part's process has ended") from error
        if isinstance(received, str):
            raise SimulatorError(f"a part's process failed: {received}")
        return received


def _serve(pipe: Connection, make: MakePart) -> None:
    began_bytes = psutil.Process().memory_info().rss
    try:
        part = make()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        while (asked := pipe.recv()) is not None:
            pipe.send(part.advance(asked))
        outcome = part.finish()
        used = resource.getrusage(resource.RUSAGE_SELF)
        grown_bytes = used.ru_maxrss * KIB - began_bytes
        pipe.send(Ending(outcome, used.ru_utime + used.ru_stime, grown_bytes))
    except (EOFError, BrokenPipeError):
        return  # the world has ended
    except Exception:
        pipe.send(traceback.format_exc())
