"""The runner process from its first line to its end: start, confine, load, self-test, serve.

Invariants: it is confined before it imports a runtime, which starts threads of its own; it dies
with its supervisor (the kernel's parent-death signal for a runner that hangs, the socketpair's end
for one that does not); a model that cannot be loaded is said in words before the process ends.
"""

import ctypes
import logging
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeloop_agent.allocator import keep_one_heap
from edgeloop_agent.errors import ModelLoadError, RunnerLineError
from edgeloop_agent.runner.confinement import confine, confine_challenger, limit_memory
from edgeloop_agent.runner.control import Control, SupervisorGone
from edgeloop_agent.runner.memory import in_words
from edgeloop_agent.runner_protocol import (
    ConfinedLine,
    ModelFiles,
    SelfTestedLine,
    StartChallengerLine,
    StartLine,
)
from edgeloop_protocol.limits import TEXT_MAX_CHARS

if TYPE_CHECKING:
    from edgeloop_agent.runner.model import Model

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> int:
    """`arguments`: --fd N --parent PID, as the supervisor gives them."""
    options = dict(zip(arguments[::2], map(int, arguments[1::2]), strict=True))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    _die_with(options["--parent"])
    keep_one_heap()
    control = Control(socket.socket(fileno=options["--fd"]))
    try:
        return _serve(control)
    except SupervisorGone:
        return 0
    except RunnerLineError as error:
        logger.error("%s", error)
        return 1


def _serve(control: Control) -> int:
    start, *more = control.read()
    if not isinstance(start, StartLine | StartChallengerLine):
        raise RunnerLineError("the first line is not a start")
    _enter_nowhere()
    models = Path(start.model.manifest_path).parents[1]
    if isinstance(start, StartLine):
        told = confine(start.config, models)
    else:
        told = confine_challenger(start.runner, models)
    from edgeloop_agent.runner.inference import Inference
    from edgeloop_agent.runner.model import Model
    from edgeloop_agent.runner.self_test import self_test

    limit_memory(told, start.memory_max_bytes)
    control.send(ConfinedLine(done=_texts(told.done), lacking=_texts(told.lacking)))
    try:
        model = Model(start.model)
    except (ModelLoadError, MemoryError) as error:
        _say_self_tested(control, start, _said(error))
        return 1
    shadow = _load_shadow(start.shadow) if isinstance(start, StartLine) else None
    os.chdir("/")
    _say_self_tested(control, start, self_test(model))
    model.reset()  # the golden examples were a sequence of their own
    inference = Inference(model, shadow)
    if isinstance(start, StartLine):
        from edgeloop_agent.runner.serving import Serving

        Serving(control, start, inference).run(more)
    else:
        from edgeloop_agent.runner.shadowing import Shadowing

        Shadowing(control, start, inference).run(more)
    return 0


def _enter_nowhere() -> None:
    """A directory that is gone already, so that no external-data name of a model finds a file."""
    nowhere = tempfile.mkdtemp(prefix="edgeloop-runner-")
    os.chdir(nowhere)
    Path(nowhere).rmdir()


def _load_shadow(files: ModelFiles | None) -> "Model | None":
    """Without a shadow the candidate is still judged by itself."""
    from edgeloop_agent.runner.model import Model

    if files is None:
        return None
    try:
        return Model(files)
    except (ModelLoadError, MemoryError) as error:
        logger.warning("no shadow: %s", _said(error))
        return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _say_self_tested(
    control: Control, start: StartLine | StartChallengerLine, problem: str | None
) -> None:
    detail = in_words(problem or "", start.memory_max_bytes)
    control.send(SelfTestedLine(passed=problem is None, detail=detail[:TEXT_MAX_CHARS]))


def _texts(words: list[str]) -> tuple[str, ...]:
    return tuple(one[:TEXT_MAX_CHARS] for one in words)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent is gone, even if it hangs then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(0)
