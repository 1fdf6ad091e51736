"""Every operation of the store of verified metadata, on the disk that keeps what POSIX promises.

At each one the verifier is killed, or told that the disk is broken or full, and starts again; and
at every operation from then on the two worst that a power cut could leave are looked at. What was
saved, or found in a store that has begun, must be there, whole or replaced by what was saved after
it; what may be trusted to begin with is never gone.

Invariant: one thread, no clock: the same outcome each time.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

from edgeloop_agent.trust.metadata_store import BOOTSTRAP, MetadataStore
from edgeloop_simulators.torture.striker import ContentOf, Fault, Killed, Striker, Struck

BEGUN_WITH: Final = b"root 1"
REFRESHES: Final = (
    (("root", b"root 2"), ("timestamp", b"timestamp 1"), ("snapshot", b"s 1"), ("targets", b"t 1")),
    (("root", b"root 3"), ("root", b"root 4"), ("timestamp", b"timestamp 2")),
    (("timestamp", b"timestamp 3"), ("snapshot", b"s 2"), ("targets", b"t 2"), ("m/x", b"m 1")),
)
"""What three look-ups save, in order."""
ROLES: Final = tuple(dict.fromkeys(role for refresh in REFRESHES for role, _ in refresh))
STARTS_MAX: Final = 3


def play() -> Iterator[Struck]:
    """One after the other, until three look-ups have no further operation."""
    for place in count():
        for fault in Fault:
            run = _Run(place, fault)
            problems = run.play()
            if not run.striker.operation:
                return
            yield Struck(place, run.striker.operation, fault, tuple(problems))


class _Run:
    def __init__(self, place: int, fault: Fault) -> None:
        self.striker = Striker(place, fault, self._problem)
        self._disk = self.striker.disk
        self._has_begun = False
        self._promised: dict[str, int] = {}
        """Role → how many of its documents were saved."""

    def play(self) -> list[str]:
        self.striker.begin()
        for refresh in range(len(REFRESHES)):
            for _ in range(STARTS_MAX):
                try:
                    self._look_up(refresh)
                    break
                except Killed:
                    self._disk.process_killed()
                except OSError:
                    continue
        self.striker.look("the end")
        return self.striker.problems[:1]

    def _look_up(self, refresh: int) -> None:
        store = MetadataStore(self._disk)
        store.begin(BEGUN_WITH)
        self._has_begun = True
        for role in ROLES:
            found = store.load(role)
            if found is not None:
                self._promised[role] = _documents(role).index(found)
        for role, document in REFRESHES[refresh]:
            number = _documents(role).index(document)
            if number > self._promised.get(role, -1):  # what is found is not fetched again
                store.save(role, document)
                self._promised[role] = number

    def _problem(self, content_of: ContentOf) -> str:
        if self._has_begun and content_of(BOOTSTRAP) != BEGUN_WITH:
            return "no bootstrap to begin with"
        for role in ROLES:
            content = content_of(f"{role.replace('/', '%2F')}.json")
            promised = self._promised.get(role)
            if content is None:
                if promised is not None:
                    return f"no {role}"
            elif content not in _documents(role):
                return f"half a {role}"
            elif promised is not None and _documents(role).index(content) < promised:
                return f"an older {role} than was kept"
        return ""


def _documents(role: str) -> list[bytes]:
    """In the order of their saving."""
    saved = [document for refresh in REFRESHES for it, document in refresh if it == role]
    return [BEGUN_WITH, *saved] if role == "root" else saved
