"""The runner's loop: one thread, one select over the supervisor, the source and the deadlines.

Invariants: heartbeats come from this loop, so that a hang shows; a source that cannot be opened is
said and tried again, for ever, because that is no fault of the version; every example that was
read is answered or counted as an error before the loop ends; a stop ends it after what was read.
"""

import random
import select
import time
from collections.abc import Sequence
from typing import Any, Final

from edgeloop_agent.config import TelemetryConfig
from edgeloop_agent.errors import DataSetError
from edgeloop_agent.runner.capture import Capture
from edgeloop_agent.runner.chunks import Chunks
from edgeloop_agent.runner.control import Control
from edgeloop_agent.runner.inference import Answer, Batch, Inference, NoAnswer
from edgeloop_agent.runner.memory import resident_bytes
from edgeloop_agent.runner.mirror import MirrorWriter
from edgeloop_agent.runner.open_source import open_sink, open_source
from edgeloop_agent.runner.sinks import DiscardingSink
from edgeloop_agent.runner.sources import Example, Replying
from edgeloop_agent.runner.window import SketchSet, Window
from edgeloop_agent.runner_protocol import (
    HEARTBEAT_S,
    CaptureLine,
    DropShadowLine,
    GoLine,
    HeartbeatLine,
    MirrorLine,
    ServingLine,
    StartLine,
    StopLine,
    ToRunner,
)
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import DeviceEvent, Sketches

SOURCE_RETRY_S: Final = 2.0


class Serving:
    def __init__(self, control: Control, start: StartLine, inference: Inference) -> None:
        self._control = control
        self._start = start
        self._inference = inference
        self._model = inference.answering.model
        self._telemetry: TelemetryConfig = start.telemetry
        self._capture = Capture(
            start.slot,
            self._model.version,
            self._model.manifest,
            start.config.capture,
            start.telemetry,
            random.Random(),  # noqa: S311 - a sample, no secret
            control.send,
        )
        self._mirror: MirrorWriter | None = None
        self._label_names = [label.encode() for label in self._model.manifest.labels]
        self._stopping = False
        self._examples = self._errors = self._source_errors = self._nonfinite = 0
        self._first_error = self._source_problem = ""
        self._chunks = Chunks()
        self._windows = 0
        self._sketches = SketchSet(len(self._model.manifest.features))
        self._window = self._new_window()
        self._beat_at = self._window_ends = time.monotonic()

    def run(self, heard: list[ToRunner]) -> None:
        """Wait for Go and for the source, then answer until told to stop. Raises SupervisorGone.

        `heard` came together with the start: a stop among it counts.
        """
        self._mind(heard)
        if not self._wait_for_go() or not self._open():
            return
        self._replying = self._source if isinstance(self._source, Replying) else None
        self._is_told = not isinstance(self._sink, DiscardingSink)
        self._window = self._new_window()
        self._control.send(ServingLine())
        self._window_ends = time.monotonic() + self._telemetry.window_s
        while not self._stopping:
            self._turn()
        self._take_all(self._source.read(time.monotonic()))  # what had arrived before the stop
        self._close_window()
        self._beat()
        self._sink.close()
        self._source.close()

    def _wait_for_go(self) -> bool:
        while not self._stopping:
            if any(isinstance(message, GoLine) for message in self._idle()):
                return not self._stopping
        return False

    def _open(self) -> bool:
        while not self._stopping:
            try:
                self._source = open_source(self._start.config, self._start.endpoint, self._model)
                self._sink = open_sink(self._start.config, self._source)
            except DataSetError as error:
                self._source_problem = str(error)[:TEXT_MAX_CHARS]
            else:
                self._source_problem = ""
                return True
            retry_at = time.monotonic() + SOURCE_RETRY_S
            while not self._stopping and time.monotonic() < retry_at:
                self._idle()
        return False

    def _idle(self) -> list[ToRunner]:
        """Beat, and hear what the supervisor says until the next beat."""
        self._beat()
        readable, _, _ = select.select([self._control], [], [], HEARTBEAT_S)
        return self._hear() if readable else []

    def _turn(self) -> None:
        now = time.monotonic()
        due = self._source.next_due()
        until = min(self._beat_at, self._window_ends, *(() if due is None else (due,)))
        feed = self._source.fileno()
        reading: list[Any] = [self._control] if feed is None else [self._control, feed]
        pending = self._source.wants_to_write
        readable, writable, _ = select.select(
            reading, reading[1:] if pending else [], [], max(0.0, until - now)
        )
        if self._control in readable:
            self._hear()
        if writable:
            self._source.flush()
        now = time.monotonic()
        if feed in readable or (due is not None and now >= due):
            self._take_all(self._source.read(now))
        if time.monotonic() >= self._beat_at:
            self._beat()
        if time.monotonic() >= self._window_ends:
            self._close_window()

    def _hear(self) -> list[ToRunner]:
        said = self._control.read()
        self._mind(said)
        return said

    def _mind(self, said: list[ToRunner]) -> None:
        for message in said:
            if isinstance(message, StopLine):
                self._stopping = True
            elif isinstance(message, CaptureLine):
                self._capture.ask(message.examples)
            elif isinstance(message, DropShadowLine):
                self._close_window()
                self._inference.shadow = None
            elif isinstance(message, MirrorLine):
                if self._mirror is not None:
                    self._mirror.close()
                self._mirror = MirrorWriter(self._control.take_socket())

    def _take_all(self, examples: Sequence[Example]) -> None:
        """In chunks that take about CHUNK_S, so that an answer waits for few others, and a beat
        for none. One bad example sends its chunk the slow way, one by one."""
        start = 0
        while start < len(examples):
            chunk = examples[start : start + self._chunks.examples()]
            start += len(chunk)
            values = [example.values for example in chunk if example.values is not None]
            batch = None
            if len(values) == len(chunk) and not any(example.begins for example in chunk):
                batch = self._inference.answer_many(values, self._start.config.batch)
            if batch is None:
                for example in chunk:
                    self._take(example)
                    if time.monotonic() >= self._beat_at:
                        self._beat()
            else:
                self._give_all(chunk, batch)
            if time.monotonic() >= self._beat_at:
                self._beat()

    def _give_all(self, examples: Sequence[Example], batch: Batch) -> None:
        self._examples += len(examples)
        self._chunks.took(batch.latencies_us[-1])
        taken_at = time.time()
        if self._is_told:
            names = self._model.manifest.labels
            for row, example in enumerate(examples):
                label, confidence = int(batch.labels[row]), float(batch.confidences[row])
                answer = {"label": names[label], "confidence": round(confidence, 6)}
                self._say(example.reference, answer, taken_at)
        if self._replying is not None:
            for row, example in enumerate(examples):
                self._replying.reply(example, batch.answer(row))
        if self._mirror is not None:
            for example, label in zip(examples, batch.labels.tolist(), strict=True):
                self._mirror_to_challenger(example, label)
        self._window.timed_many(batch.latencies_us)
        self._window.answered_many(batch.features, batch.labels, batch.confidences)
        if batch.shadow_labels is not None:
            disagreed = int((batch.shadow_labels != batch.labels).sum())
            self._window.compared_many(len(examples), disagreed)
        shadow = self._inference.shadow
        self._capture.many(
            [example.reference for example in examples],
            taken_at,
            batch.features,
            batch.confidences,
            None if batch.shadow_labels is None else batch.shadow_labels != batch.labels,
            lambda row: batch.answer(row),
            shadow.model.version if shadow is not None else None,
        )

    def _take(self, example: Example) -> None:
        if example.values is None:
            self._source_errors += 1
            self._refuse(example.reference, NoAnswer(example.problem))
            return
        if example.begins:
            self._inference.reset()
        answer = self._inference.answer(example.values)
        if self._replying is not None:
            self._replying.reply(example, answer)
        if isinstance(answer, NoAnswer):
            if answer.latency_us is not None:
                self._window.timed(answer.latency_us)
            if answer.nonfinite:
                self._nonfinite += 1
            elif answer.by_source:
                self._source_errors += 1
            else:
                self._errors += 1
            self._refuse(example.reference, answer)
        else:
            self._give(example.reference, answer)
            self._mirror_to_challenger(example, answer.label)

    def _mirror_to_challenger(self, example: Example, label: int) -> None:
        if self._mirror is not None and example.values is not None:
            self._mirror.give(example.values, self._label_names[label], example.begins)

    def _refuse(self, reference: str, answer: NoAnswer) -> None:
        if answer.nonfinite:
            self._window.gave_nonfinite()
        else:
            self._window.errored()
        if not self._first_error:
            self._first_error = answer.problem[:TEXT_MAX_CHARS]
            detail = f"{reference or 'an example'}: {answer.problem}"
            self._control.send(
                DeviceEvent(
                    at=time.time(),
                    name="no_answer",
                    slot=self._start.slot,
                    version=self._model.version,
                    detail=detail[:TEXT_MAX_CHARS],
                )
            )
        self._say(reference, {"error": answer.problem}, time.time())

    def _give(self, reference: str, answer: Answer) -> None:
        self._examples += 1
        self._chunks.took(answer.latency_us)
        taken_at = time.time()
        label = self._model.manifest.labels[answer.label]
        self._say(reference, {"label": label, "confidence": round(answer.confidence, 6)}, taken_at)
        self._window.timed(answer.latency_us)
        self._window.answered(answer.features, answer.label, answer.confidence)
        if answer.compared:
            self._window.compared(answer.shadow_label == answer.label)
        shadow = self._inference.shadow
        version = shadow.model.version if shadow is not None else None
        self._capture.one(reference, taken_at, answer, version)

    def _say(self, reference: str, answer: dict[str, Any], at: float) -> None:
        version = self._model.version
        named = {"version": str(version), "manifest_digest": version.manifest_digest, "at": at}
        self._sink.answer({"reference": reference, **answer, **named})

    def _beat(self) -> None:
        shadow = self._inference.shadow
        self._control.send(
            HeartbeatLine(
                examples=self._examples,
                errors=self._errors,
                source_errors=self._source_errors,
                nonfinite=self._nonfinite,
                latency_p95_us=self._inference.answering.p95_us(),
                shadow_latency_p95_us=shadow.p95_us() if shadow else None,
                memory_bytes=resident_bytes(),
                first_error=self._first_error,
                source_problem=self._source_problem,
                same_answers=self._inference.sameness.same_answers,
                shadow_varied=self._inference.sameness.shadow_varied,
            )
        )
        self._beat_at = time.monotonic() + HEARTBEAT_S

    def _new_window(self) -> Window:
        return Window(self._model.manifest, self._sketches, time.time())

    def _close_window(self) -> None:
        """Send the window's summary and begin the next; nothing happened is said too."""
        self._windows += 1
        shadow = self._inference.shadow
        summary = self._window.summary(
            slot=self._start.slot,
            version=self._model.version,
            ended_at=time.time(),
            memory_bytes=resident_bytes(),
            shadow=shadow.model.version if shadow else None,
            sketches=None,
        )
        if self._windows % self._telemetry.sketch_every == 0:
            summary = summary.model_copy(update={"sketches": self._take_sketches()})
        self._control.send(summary)
        self._capture.window_ends()
        self._window = self._new_window()
        self._window_ends = time.monotonic() + self._telemetry.window_s

    def _take_sketches(self) -> Sketches | None:
        sketches = self._sketches.serialise()
        self._sketches = SketchSet(len(self._model.manifest.features))
        return None if self._capture.withholds else sketches
