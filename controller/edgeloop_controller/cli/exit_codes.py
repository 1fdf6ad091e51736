"""The exit codes of `edgeloop`, in one table (the README shows it)."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED_INPUT = 5
    UNREACHABLE = 6
    CANNOT_START = 7
    NO_ANSWER = 8
    DIFFERENT = 9
    NOT_ALLOWED = 10


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the controller failed; its log says why",
    ExitCode.USAGE: "wrong arguments or a wrong configuration file",
    ExitCode.NOT_FOUND: "no such device, version, rollout, run, policy, or no match",
    ExitCode.CONFLICT: "contradicts what is already so, e.g. a published version",
    ExitCode.REFUSED_INPUT: "a file, selector, label or other input that cannot be used",
    ExitCode.UNREACHABLE: "no controller answers at the URL",
    ExitCode.CANNOT_START: "serve: a port or the data directory is in use",
    ExitCode.NO_ANSWER: "the device, or the broker about a device, did not answer in time",
    ExitCode.DIFFERENT: "diff: the files and the fleet differ",
    ExitCode.NOT_ALLOWED: "no valid token, or its roles do not allow that",
}

# HTTP status of the controller's answer → exit code; any other is FAILED.
BY_STATUS: Final = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    413: ExitCode.REFUSED_INPUT,
    422: ExitCode.REFUSED_INPUT,
    504: ExitCode.NO_ANSWER,
}
