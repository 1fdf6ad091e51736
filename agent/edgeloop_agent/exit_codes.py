"""Exit codes of `edgeloop-agent`, in one table."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # argparse's own code, also for a configuration that cannot be used
    STATE_DIR_IN_USE = 3
    NOT_RUNNING = 4
    DOCTOR_WARNS = 5
    DOCTOR_FAILED = 6
    WAITS_FOR_APPROVAL = 7
