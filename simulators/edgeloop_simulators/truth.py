"""What was played, what it was, and what was answered: the ground truth of a run.

Invariants: each answer is written to `answers.jsonl` beside the true label of the window that was
played, each mark to `marks.jsonl`, in the order of arrival and before anything is computed from
it; what a version was trained on is known by reference, so that `counts` can leave out of its
accuracy every window that it trained on or that overlaps one.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from edgeloop_simulators.datasets.windows import Window
from edgeloop_simulators.references import RowRanges

RECENT_S: Final = 8.0
"""Over how long the rolling accuracy is taken."""


@dataclass(frozen=True)
class Answer:
    """One answered window; `label` is None when the version gave an error instead."""

    at: float
    device: str
    reference: str
    phase: str
    broken: bool
    truth: str
    label: str | None
    confidence: float | None
    version: str | None
    manifest_digest: str | None
    error: str | None = None

    @property
    def correct(self) -> bool:
        return self.label == self.truth


@dataclass(frozen=True)
class Mark:
    """Something that the world did, or saw."""

    at: float
    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Played:
    window: Window
    phase: str
    broken: bool


def counts(answer: Answer, trained: Mapping[str, RowRanges]) -> bool:
    """Whether the answer may count in its version's accuracy.

    Not those of a device whose sensor is broken, nor of a version of which it is not known what it
    trained on, nor windows that share a row with its training data.
    """
    if answer.broken or answer.manifest_digest is None:
        return False
    ranges = trained.get(answer.manifest_digest)
    return ranges is not None and not ranges.overlaps(answer.reference)


class Truth:
    """Fed by the sensors' thread, read by the story's and the display's."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._answers: TextIO = (directory / "answers.jsonl").open("a", encoding="utf-8")
        self._marks_file: TextIO = (directory / "marks.jsonl").open("a", encoding="utf-8")
        self._trained_path = directory / "trained_on.json"
        self._played: dict[str, dict[str, Played]] = {}
        self._trained: dict[str, RowRanges] = {}
        self._trained_references: dict[str, list[str]] = {}
        self._recent: deque[Answer] = deque()
        self._answered: dict[tuple[str, str], int] = {}
        self._last_version: dict[str, str] = {}
        self.marks: list[Mark] = []

    def played(self, device: str, window: Window, phase: str, broken: bool) -> None:
        with self._lock:
            seen = self._played.setdefault(device, {})
            seen[window.reference] = Played(window, phase, broken)

    def answered(self, device: str, document: Mapping[str, Any]) -> None:
        """An answer to a window that was never played is ignored: it has no truth."""
        with self._lock:
            reference = str(document.get("reference"))
            played = self._played.get(device, {}).get(reference)
            if played is None:
                return
            answer = Answer(
                at=time.time(),
                device=device,
                reference=reference,
                phase=played.phase,
                broken=played.broken,
                truth=played.window.label,
                label=document.get("label"),
                confidence=document.get("confidence"),
                version=document.get("version"),
                manifest_digest=document.get("manifest_digest"),
                error=document.get("error"),
            )
            self._answers.write(json.dumps(asdict(answer)) + "\n")
            self._remember(answer)

    def _remember(self, answer: Answer) -> None:
        self._recent.append(answer)
        while self._recent and self._recent[0].at < answer.at - RECENT_S:
            self._recent.popleft()
        if answer.manifest_digest is not None:
            key = (answer.device, answer.manifest_digest)
            self._answered[key] = self._answered.get(key, 0) + 1
        if answer.version is not None:
            self._last_version[answer.device] = answer.version

    def label_of(self, device: str, reference: str) -> str | None:
        """The true label of a window that the device was played; what an annotator would say."""
        with self._lock:
            played = self._played.get(device, {}).get(reference)
        return None if played is None else played.window.label

    def trained_on(self, manifest_digest: str, references: Iterable[str]) -> None:
        listed = sorted(set(references))
        with self._lock:
            self._trained[manifest_digest] = RowRanges(listed)
            self._trained_references[manifest_digest] = listed
            self._trained_path.write_text(json.dumps(self._trained_references), encoding="utf-8")

    def trained_references(self, manifest_digest: str) -> list[str]:
        with self._lock:
            return list(self._trained_references.get(manifest_digest, ()))

    def mark(self, kind: str, text: str, at: float | None = None, **data: Any) -> Mark:
        """Record that something happened, now unless `at` says when."""
        mark = Mark(time.time() if at is None else at, kind, text, data)
        with self._lock:
            self.marks.append(mark)
            self._marks_file.write(json.dumps(asdict(mark)) + "\n")
            self._marks_file.flush()
        return mark

    def answered_by(self, device: str, manifest_digest: str) -> int:
        with self._lock:
            return self._answered.get((device, manifest_digest), 0)

    def versions(self) -> dict[str, str]:
        """Which version answered each device's last window."""
        with self._lock:
            return dict(self._last_version)

    def rolling_accuracy(self) -> tuple[float, int] | None:
        """Share of right answers in the last RECENT_S seconds, and of how many; None: no answer."""
        with self._lock:
            since = time.time() - RECENT_S
            counted = [a for a in self._recent if a.at >= since and counts(a, self._trained)]
        if not counted:
            return None
        return sum(a.correct for a in counted) / len(counted), len(counted)

    def close(self) -> None:
        with self._lock:
            self._answers.close()
            self._marks_file.close()
