"""The runner process from its first line to its end: start, load, self-test, serve.

Invariants: it dies with its supervisor (the kernel's parent-death signal for a runner that hangs,
the socketpair's end for one that does not); a model that cannot be loaded is said in words before
the process ends.
"""

import argparse
import ctypes
import logging
import os
import signal
import socket
import tempfile
from typing import Final

from edgeloop_agent.errors import ModelLoadError, RunnerLineError
from edgeloop_agent.runner.control import Control, SupervisorGone
from edgeloop_agent.runner.inference import Inference
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.self_test import self_test
from edgeloop_agent.runner.serving import Serving
from edgeloop_agent.runner_protocol import ModelFiles, SelfTestedLine, StartLine
from edgeloop_protocol.limits import TEXT_MAX_CHARS

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="edgeloop_agent.runner")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    _die_with(options.parent)
    control = Control(socket.socket(fileno=options.fd))
    try:
        return _serve(control)
    except SupervisorGone:
        return 0
    except RunnerLineError as error:
        logger.error("%s", error)
        return 1


def _serve(control: Control) -> int:
    start, *more = control.read()
    if not isinstance(start, StartLine):
        raise RunnerLineError("the first line is not a start")
    with tempfile.TemporaryDirectory(prefix="edgeloop-runner-") as empty:
        os.chdir(empty)  # so that no external-data name of a model finds a file
        try:
            model = Model(start.model)
        except ModelLoadError as error:
            _say_self_tested(control, str(error))
            return 1
        shadow = _load_shadow(start.shadow)
        os.chdir("/")
    _say_self_tested(control, self_test(model))
    model.reset()  # the golden examples were a sequence of their own
    Serving(control, start, Inference(model, shadow)).run(more)
    return 0


def _load_shadow(files: ModelFiles | None) -> Model | None:
    """Without a shadow the candidate is still judged by itself."""
    if files is None:
        return None
    try:
        return Model(files)
    except ModelLoadError as error:
        logger.warning("no shadow: %s", error)
        return None


def _say_self_tested(control: Control, problem: str | None) -> None:
    control.send(SelfTestedLine(passed=problem is None, detail=(problem or "")[:TEXT_MAX_CHARS]))


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent is gone, even if it hangs then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(0)
