"""An annotator: labels a share of the samples that devices sent, and takes time over it.

Invariants: works through the HTTP API only; which samples it labels depends on the reference and
the seed alone, so the same window is always labelled or never; a sample is labelled no sooner
than `delay_s` after it was first seen.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final, Protocol

from edgeloop_simulators.scenario import Annotator as Terms

log = logging.getLogger(__name__)

PAGE: Final = 500


class LabellingApi(Protocol):
    """What the annotator needs of the controller's client."""

    def unlabelled_samples(self, after: int, limit: int) -> Sequence[dict[str, Any]]: ...

    def give_labels(self, labels: Sequence[dict[str, Any]], annotator: str) -> None: ...


def chosen(reference: str, fraction: float, seed: int) -> bool:
    """Whether this window is among the share that gets a label."""
    digest = hashlib.sha256(f"{seed}:{reference}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class Annotator:
    """A thread that polls, waits and labels; `stop` ends it."""

    def __init__(
        self,
        api: LabellingApi,
        truth_of: Callable[[str, str], str | None],
        terms: Terms,
        seed: int,
    ) -> None:
        self._api, self._truth_of, self._terms, self._seed = api, truth_of, terms, seed
        self._after = 0
        self._waiting: deque[tuple[float, int, str]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="annotator", daemon=True)
        self.labelled = 0

    def start(self) -> None:
        if self._terms.fraction > 0:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(self._terms.poll_s):
            try:
                self.turn(time.monotonic())
            except Exception as error:  # the controller may be away: the queue is still there
                log.warning("annotator: %s; tries again", error)

    def turn(self, now: float) -> None:
        """Look for new samples once, and hand in the labels that are due at `now`."""
        while page := self._api.unlabelled_samples(self._after, PAGE):
            for sample in page:
                self._see(sample, now)
            self._after = int(page[-1]["id"])
        due = [
            {"sample_id": sample_id, "label": label}
            for _, sample_id, label in takewhile(lambda one: one[0] <= now, self._waiting)
        ]
        if due:
            self._api.give_labels(due, "annotator")
            for _ in due:  # only now: had they been refused, they would wait here still
                self._waiting.popleft()
            self.labelled += len(due)

    def _see(self, sample: dict[str, Any], now: float) -> None:
        label = self._truth_of(sample["device_id"], sample["reference"])
        if label and chosen(sample["reference"], self._terms.fraction, self._seed):
            self._waiting.append((now + self._terms.delay_s, int(sample["id"]), label))
