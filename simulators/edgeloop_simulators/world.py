"""The story's hands and eyes: what it asks of the controller, and how it waits.

Invariants: works by the public interfaces alone (the HTTP API, the sensors, the annotator); every
wait has a condition and a deadline, and notices a process that died.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from edgeloop_simulators.errors import StoryError
from edgeloop_simulators.testbed import Testbed

POLL_S: Final = 0.3
SLOT: Final = "main"
FIRST_OUTPUT: Final = "training-of-the-first"

T = TypeVar("T")


class Listener(Protocol):
    """Who shows the story as it goes."""

    def step_started(self, index: int) -> None: ...
    def step_ended(self, index: int, outcome: str, failed: bool) -> None: ...
    def tick(self) -> None: ...


class World:
    """A testbed that is being played on."""

    def __init__(self, bed: Testbed, listener: Listener) -> None:
        self.bed, self.listener = bed, listener
        self.accuracy_before: float | None = None

    def wait(self, condition: Callable[[], T | None], deadline_s: float, otherwise: str) -> T:
        """The first true value of `condition`. Raises StoryError at the deadline."""
        deadline = time.monotonic() + deadline_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise StoryError(f"{otherwise} within {deadline_s:.0f} s")
            self.pause(POLL_S)
        return value

    def pause(self, duration_s: float) -> None:
        """Let the world go on for a while, watching that every process is there."""
        until = time.monotonic() + duration_s
        while (left := until - time.monotonic()) > 0:
            self.bed.fleet.check()
            self.listener.tick()
            time.sleep(min(POLL_S, left))

    def published(
        self, what: str, version: dict[str, Any], trained_on: Iterable[str], text: str
    ) -> None:
        digest = str(version["manifest_digest"])
        self.bed.published[what] = digest
        self.bed.truth.trained_on(digest, trained_on)
        at = float(version["published_at"])
        self.bed.truth.mark(
            "version.published",
            text,
            at,
            manifest_digest=digest,
            version=version["version"],
            **{"is": what},
        )

    def start_rollout(self, version: str) -> dict[str, Any]:
        terms, model = self.bed.scenario.rollout, self.bed.scenario.training.model
        return self.bed.console.start_rollout(model, version, terms.waves, terms.terms)

    def settled(self, rollout_id: int) -> str | None:
        """The status of a rollout that has ended."""
        status = str(self.bed.console.rollout(rollout_id)["status"])
        return status if status in ("done", "halted", "aborted") else None

    def all_run(self, what: str) -> bool:
        """Whether every device's champion is this version, with nothing under way."""
        digest = self.bed.published[what]
        slots = [s for d in self.bed.console.devices() for s in d["slots"] if s["slot"] == SLOT]
        return len(slots) == len(self.bed.device_ids) and all(
            slot["champion"] is not None
            and slot["champion"]["manifest_digest"] == digest
            and slot["candidate"] is None
            for slot in slots
        )

    def champion(self) -> str:
        published = self.bed.published
        return published.get("retrained", published["first"])

    def output_of(self, what: str) -> Path:
        """Where the training script wrote the version that was published as `what`."""
        if what == "first":
            return self.bed.directory / FIRST_OUTPUT / "output"
        digest = self.bed.published[what]
        for run in self.bed.console.training_runs():
            if run["candidate"] is not None and run["candidate"]["manifest_digest"] == digest:
                return Path(run["directory"]) / "output"
        raise StoryError(f"no training run made the version {digest[:12]} ({what})")

    def alarm(self, cause: str, key: str) -> dict[str, Any] | None:
        found = [a for a in self.bed.console.alarms() if a["cause"] == cause and a["key"] == key]
        return found[-1] if found else None

    def accuracy_text(self) -> str:
        rolling = self.bed.truth.rolling_accuracy()
        return f", accuracy now {rolling[0]:.2f}" if rolling else ""

    def ended_run(self) -> dict[str, Any] | None:
        """The newest training run that has ended, however it ended."""
        ended = ("succeeded", "rejected", "failed")
        return next((r for r in self.bed.console.training_runs() if r["status"] in ended), None)
