"""A challenger's loop: what the champion was asked, through this version, and how they differ.

Invariants: it answers nobody; heartbeats come from this loop; beyond its processor budget it rests,
and goes on with the newest example: the others are counted as skipped; a champion that is gone
leaves it waiting for the supervisor, which ends it; NaN and errors are counted, and end nothing.
"""

import select
import time
from collections import deque
from typing import Final

from edgeloop_agent.runner.control import Control
from edgeloop_agent.runner.cpu_budget import CpuBudget
from edgeloop_agent.runner.inference import Inference, NoAnswer
from edgeloop_agent.runner.memory import resident_bytes
from edgeloop_agent.runner.mirror import Mirrored, MirrorReader
from edgeloop_agent.runner.window import Window
from edgeloop_agent.runner_protocol import (
    HEARTBEAT_S,
    HeartbeatLine,
    MirrorLine,
    ServingLine,
    StartChallengerLine,
    StopLine,
    ToRunner,
)
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import ShadowSummary, VersionRef

CATCH_UP_READS_MAX: Final = 16
"""Of a chunk each: several times what the socket holds."""


class Shadowing:
    def __init__(self, control: Control, start: StartChallengerLine, inference: Inference) -> None:
        self._control = control
        self._start = start
        self._inference = inference
        self._model = inference.answering.model
        self._labels = self._model.manifest.labels
        self._mirror: MirrorReader | None = None
        self._champion: VersionRef | None = None
        self._held: deque[Mirrored] = deque()
        """Of one read; the socket holds the others, and the champion skips what that does not."""
        self._last_number = 0
        self._has_rested = False
        self._stopping = False
        self._examples = self._errors = self._nonfinite = 0
        self._first_error = ""
        self._disagreements = self._skipped = 0
        self._beat_at = time.monotonic()
        self._resume_at = self._window_ends = float("-inf")

    def run(self, heard: list[ToRunner]) -> None:
        """Until told to stop. Raises SupervisorGone."""
        self._mind(heard)
        self._begin_window()
        while not self._stopping:
            self._turn()
        if self._champion is not None:
            self._close_window()
        self._beat()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat()
        if self._champion is not None and now >= self._window_ends:
            self._close_window()
        is_resting = now < self._resume_at
        if self._held and not is_resting:
            self._see(self._held.popleft())
            if select.select([self._control], [], [], 0.0)[0]:
                self._mind(self._control.read())
            return
        until = min(self._beat_at, self._window_ends if self._champion else self._beat_at)
        if is_resting:
            until = min(until, self._resume_at)
        reading: list[Control | MirrorReader] = [self._control]
        if self._mirror is not None and self._mirror.is_open and not is_resting:
            reading.append(self._mirror)
        readable, _, _ = select.select(reading, [], [], max(0.0, until - now))
        if self._control in readable:
            self._mind(self._control.read())
        if self._mirror in readable and self._mirror is not None:
            self._held.extend(self._mirror.read())
            if self._has_rested:
                self._catch_up(self._mirror)

    def _catch_up(self, mirror: MirrorReader) -> None:
        """What came while it rested is too much for its budget: only the newest is taken up."""
        for _ in range(CATCH_UP_READS_MAX):
            newest = deque(mirror.read(), maxlen=1)
            if not newest:
                break
            self._held = newest
        while len(self._held) > 1:
            self._held.popleft()
        self._has_rested = False

    def _mind(self, said: list[ToRunner]) -> None:
        for message in said:
            if isinstance(message, StopLine):
                self._stopping = True
            elif isinstance(message, MirrorLine):
                self._mirror = MirrorReader(self._control.take_socket())
                self._champion = message.champion
                self._budget = CpuBudget(
                    self._start.budget.cpu_fraction, time.process_time(), time.monotonic()
                )
                self._begin_window()
                self._control.send(ServingLine())

    def _see(self, one: Mirrored) -> None:
        skipped = one.number - self._last_number - 1
        self._last_number = one.number
        self._skipped += skipped
        if one.begins or skipped:  # of a sequence with a hole nothing is remembered rightly
            self._inference.reset()
        answer = self._inference.answer(one.values)
        if answer.latency_us is not None:
            self._window.timed(answer.latency_us)
        if not isinstance(answer, NoAnswer):
            self._examples += 1
            self._window.answered(answer.features, answer.label, answer.confidence)
            self._disagreements += self._labels[answer.label] != one.label
        elif answer.nonfinite:
            self._nonfinite += 1
            self._window.gave_nonfinite()
        else:
            self._errors += 1
            self._window.errored()
            self._first_error = self._first_error or answer.problem[:TEXT_MAX_CHARS]
        now = time.monotonic()
        pause_s = self._budget.pause_s(time.process_time(), now)
        if pause_s > 0:
            self._resume_at = now + pause_s
            self._held.clear()
            self._has_rested = True

    def _beat(self) -> None:
        self._control.send(
            HeartbeatLine(
                examples=self._examples,
                errors=self._errors,
                nonfinite=self._nonfinite,
                latency_p95_us=self._inference.answering.p95_us(),
                memory_bytes=resident_bytes(),
                first_error=self._first_error,
            )
        )
        self._beat_at = time.monotonic() + HEARTBEAT_S

    def _begin_window(self) -> None:
        self._window = Window(self._model.manifest, None, time.time())
        self._window_ends = time.monotonic() + self._start.telemetry.window_s
        self._disagreements = self._skipped = 0
        self._cpu_began_s = time.process_time()

    def _close_window(self) -> None:
        assert self._champion is not None  # whoever asks for a window is fed
        window = self._window.summary(
            slot=self._start.slot,
            version=self._model.version,
            ended_at=time.time(),
            memory_bytes=resident_bytes(),
            shadow=None,
            sketches=None,
        )
        self._control.send(
            ShadowSummary(
                champion=self._champion,
                window=window,
                disagreements=self._disagreements,
                skipped=self._skipped,
                cpu_s=time.process_time() - self._cpu_began_s,
            )
        )
        self._begin_window()
