"""A handle on one rollout: steer it, look at it, follow it to its end.

Invariant: `document` is what the controller said last; each method brings it up to date.
"""

import getpass
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgeloop.client import Client, quoted
from edgeloop.documents.rollouts import RolloutDetail
from edgeloop.errors import ApiError, RolloutHaltedError, RolloutTimeoutError
from edgeloop.progress import progress

IfBusy = Literal["refuse", "queue", "preempt"]

ENDED: Final = frozenset({"done", "halted", "aborted"})
LOOK_S: Final = 1.0
FOLLOW_S_MAX: Final = 24 * 3600.0


@dataclass(frozen=True)
class RolloutRequest:
    """None: the controller's default."""

    name: str
    version: str
    selector: str
    waves: Sequence[str] | None = None
    slot: str = "main"
    terms: Mapping[str, Any] | None = None
    if_busy: IfBusy = "refuse"
    allow_empty: bool = False

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "selector": self.selector,
            "slot": self.slot,
            "if_busy": self.if_busy,
            "allow_empty": self.allow_empty,
        }
        if self.waves is not None:
            body["waves"] = [str(wave) for wave in self.waves]
        if self.terms is not None:
            body["terms"] = dict(self.terms)
        return body


class Rollout:
    def __init__(self, client: Client, document: RolloutDetail) -> None:
        self._client = client
        self.document = document

    @classmethod
    def start(cls, client: Client, asked: RolloutRequest) -> "Rollout":
        return cls(client, client.send(RolloutDetail, "POST", "/rollouts", asked.body()))

    @classmethod
    def read(cls, client: Client, rollout_id: int) -> "Rollout":
        return cls(client, client.read(RolloutDetail, f"/rollouts/{rollout_id}"))

    @property
    def id(self) -> int:
        return self.document.id

    @property
    def status(self) -> str:
        """As it was said last; `refresh` asks again."""
        return self.document.status

    def __repr__(self) -> str:
        one = self.document
        return f"<rollout {one.id} of {one.name}@{one.version}: {one.status}: {one.verdict}>"

    def refresh(self) -> RolloutDetail:
        self.document = self._client.read(RolloutDetail, f"/rollouts/{self.id}")
        return self.document

    def pause(self) -> RolloutDetail:
        """Nothing new is offered; what was offered stays."""
        return self._do("pause")

    def resume(self) -> RolloutDetail:
        return self._do("resume")

    def abort(self, reason: str = "aborted by hand") -> RolloutDetail:
        """Devices that have not committed go back to what they ran."""
        return self._do("abort", {"reason": reason})

    def approve(self, wave: int | None = None, by: str | None = None) -> RolloutDetail:
        """Let a wave begin that waits for a person: the next, and by default in your name."""
        by = by or self._client.actor or getpass.getuser()
        return self._do("approve", {"wave": wave, "by": by})

    def roll_back(self, to: str | None = None, reason: str = "by hand") -> RolloutDetail:
        """Take the version from all that have it by this rollout. `to`: NAME@VERSION for all."""
        return self._do("rollback", {"to": to, "reason": reason})

    def hold(self, device_id: str, reason: str = "held out by hand") -> RolloutDetail:
        """Keep a device out; what it has by this rollout goes back."""
        return self._do(f"devices/{quoted(device_id)}/hold", {"reason": reason})

    def release(self, device_id: str) -> RolloutDetail:
        return self._do(f"devices/{quoted(device_id)}/release")

    def follow(
        self,
        timeout_s: float = FOLLOW_S_MAX,
        *,
        every_s: float = LOOK_S,
        show: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> RolloutDetail:
        """Show its progress until it is done; what it says then.

        Raises RolloutHaltedError with the verdict when it was halted or aborted, and
        RolloutTimeoutError after `timeout_s`; it goes on without its follower. A controller that
        does not answer is waited for as long.
        """
        with progress(show) as shown:
            for document, problem in self._looks(timeout_s, every_s, sleep):
                shown.update(document, problem)
        if self.status == "done":
            return self.document
        raise _halted(self.document)

    def _looks(
        self, timeout_s: float, every_s: float, sleep: Callable[[float], None]
    ) -> Iterator[tuple[RolloutDetail, str]]:
        """What there is, or was last and why it is not now's; the last one is ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            problem = self._look()
            yield self.document, problem
            if self.status in ENDED and not problem:
                return
            if time.monotonic() + every_s > deadline:
                raise _late(self.document, timeout_s, problem)
            sleep(every_s)

    def _look(self) -> str:
        try:
            self.refresh()
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise
            return error.message
        return ""

    def _do(self, action: str, body: Mapping[str, Any] | None = None) -> RolloutDetail:
        path = f"/rollouts/{self.id}/{action}"
        self.document = self._client.send(RolloutDetail, "POST", path, body)
        return self.document


def where(document: RolloutDetail) -> str:
    """In which wave, or in the shadow phase that comes before them."""
    if document.is_in_shadow:
        return "in its shadow phase"
    return f"in wave {document.wave} of {len(document.waves)}"


def _halted(document: RolloutDetail) -> RolloutHaltedError:
    one = document
    return RolloutHaltedError(
        f"rollout {one.id} of {one.name}@{one.version} was {one.status} {where(one)}: "
        f"{one.verdict}",
        "the evidence is in this error's `document.verdicts`; a halted rollout does not go on: "
        "publish a version that mends it, and start another",
        document,
    )


def _late(document: RolloutDetail, timeout_s: float, problem: str) -> RolloutTimeoutError:
    one = document
    return RolloutTimeoutError(
        f"rollout {one.id} of {one.name}@{one.version} did not end in {timeout_s:g} s; it is "
        f"{one.status} {where(one)}: {problem or one.verdict}",
        "it goes on: `follow` it again, or look at `document` for what it waits for",
        document,
    )
