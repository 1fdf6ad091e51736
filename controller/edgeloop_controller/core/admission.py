"""Whether a device can run a version at all: its inventory against the manifest (DESIGN §4).

Invariants: pure; the agent checks again by itself. Memory and disk that lack *now* are waits of
the agent's; here only what a device can never satisfy makes it ineligible.
"""

from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory


def unfit(manifest: Manifest, inventory: Inventory) -> str:
    """Why the device cannot run it, in words; empty when it can."""
    raise NotImplementedError
