"""File descriptors: each live connection is one, in the fleet and again in the broker.

Invariant: a fleet that does not fit is refused before its first connection, with what to do.
"""

import resource
from typing import Final

from edgeloop_simulators.errors import FleetError

SPARE: Final = 256
"""For everything that is not a device's connection."""


def need_descriptors(connections: int) -> None:
    """Raise this process's limit (and that of what it starts) as far as needed.

    Raises FleetError when the hard limit is below.
    """
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise FleetError(
            f"{connections} connections need {needed} file descriptors in one process; the limit "
            f"is {hard}: raise it (`ulimit -Hn {needed}` as root, or LimitNOFILE= in systemd), "
            "or share the devices out over several processes with --share 1/2 and --share 2/2"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, soft), hard))
