"""Whether a version may be fetched at all: verified metadata looked up, and the core's judgement.

Invariant: the device is judged by what it knows of itself: id, inventory and configured labels.
"""

from collections.abc import Mapping

from edgeloop_agent.core import trust
from edgeloop_agent.core.effects import FetchManifest
from edgeloop_agent.ports import Trust
from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.messages import Inventory


class TrustGate:
    def __init__(self, source: Trust, device_id: str, labels: Mapping[str, str]) -> None:
        self._source = source
        self._device_id = device_id
        self._labels = labels

    def use(self, labels: Mapping[str, str]) -> None:
        """Others, from the next judgement on; from any thread."""
        self._labels = labels

    def judge(self, fetch: FetchManifest, inventory: Inventory) -> trust.Verdict:
        """Raises TrustUnavailableError."""
        listed = self._source.look_up(trust.names_to_look_up(fetch.offer, fetch.highest))
        device = Labelled(self._device_id, self._labels, online=True, inventory=inventory)
        return trust.judge(fetch.offer, fetch.slot, listed, device, fetch.highest)
