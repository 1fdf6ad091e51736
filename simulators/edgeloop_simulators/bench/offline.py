"""Thirty days without a link: what the agent's telemetry makes, and what its outbox keeps of it.

`python -m edgeloop_simulators.bench.offline [--days 30] [--model 1]`

The agent's own Telemetry, byte budget and outbox (SQLite, in memory) under a simulated clock, at
the agent's default settings; made up is only what a model would have seen. At the end the outbox is
emptied into the controller's own bookkeeping, and what came is compared with what was made. Exit
code 1 when an example's count was lost or came twice.
"""

import argparse
import base64
import logging
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from datasketches import kll_floats_sketch

from edgeloop_agent.config import TelemetryConfig
from edgeloop_agent.core.budget import DAY_S, ByteBudget
from edgeloop_agent.core.reduction import GRAINS_S
from edgeloop_agent.ports import OutboxTotals
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_agent.shell.outbox_schema import make_schema
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_controller.store.telemetry import Cursor, Rows, take_batch
from edgeloop_protocol.limits import KIB, MIB, OUTBOX_DEFAULT_MAX_BYTES
from edgeloop_protocol.messages import (
    RecordBody,
    Sample,
    Sketches,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode_telemetry,
)
from edgeloop_simulators.twins.clock import SimulatedClock

DAYS: Final = 30
SLOT: Final = "main"
VERSION: Final = VersionRef(name="watch", version="1", manifest_digest="3" * 64)
EPOCH: Final = "5" * 16
MIDNIGHT_S: Final = 20_000 * DAY_S
VARIETY: Final = 60
"""So many different windows, again and again: an outbox does not see that."""
LOST: Final = 1


@dataclass(frozen=True)
class Model:
    features: int
    bins: int
    labels: int
    examples_per_s: float

    def __str__(self) -> str:
        return f"{self.features} features, {self.examples_per_s:g} examples/s"


MODELS: Final = (Model(3, 10, 4, 0.5), Model(30, 10, 7, 0.5), Model(30, 10, 7, 20.0))
BOUNDS: Final = (OUTBOX_DEFAULT_MAX_BYTES, 256 * KIB)
"""The default, and the smallest that merges windows."""


@dataclass
class Made:
    """Bytes by kind, before any budget or bound; `taken` is what went into the outbox."""

    windows: int = 0
    sketches: int = 0
    samples: int = 0
    taken: int = 0
    examples: int = 0
    window_count: int = 0


@dataclass
class Kept:
    """What came to the controller after the days; `grains`: windows by how long they are."""

    totals: OutboxTotals
    made: Made
    withheld: tuple[int, int]
    examples: int = 0
    samples: int = 0
    sketches: int = 0
    lost: int = 0
    merged: int = 0
    grains: Counter[str] = field(default_factory=Counter)
    batches: int = 0

    @property
    def windows_dropped(self) -> int:
        return self.totals.dropped - self.totals.samples_dropped - self.totals.events_dropped


class _CountedOutbox(SqliteOutbox):
    taken = 0

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        self.taken += sum(map(len, documents))
        return super().append(documents, budget_left_bytes)


class Offline:
    def __init__(self, model: Model, max_bytes: int, telemetry: TelemetryConfig) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        make_schema(database)
        self._model, self._config = model, telemetry
        self._clock = SimulatedClock(wall_s=MIDNIGHT_S)
        self._outbox = _CountedOutbox(database, EPOCH, max_bytes)
        budget = ByteBudget(telemetry.budget_bytes_per_day, None, self._clock.monotonic())
        self._telemetry = Telemetry(self._outbox, budget, self._clock)
        self._luck = np.random.default_rng(1)
        self._windows = [self._window(number) for number in range(VARIETY)]
        self._sizes = [_sizes(window) for window in self._windows]
        self._owed = 0.0
        self._made = Made()

    def play(self, days: float) -> Kept:
        self._telemetry.event("agent_started")
        for number in range(int(days * DAY_S / self._config.window_s)):
            self._clock.advance(self._config.window_s)
            for body in self._said(number):
                self._telemetry.record(body)
        self._made.taken = self._outbox.taken
        return self._arrived(self._outbox.totals())

    def _said(self, number: int) -> list[RecordBody]:
        """In one window."""
        now = self._clock.wall()
        pattern = self._windows[number % VARIETY]
        times = {"started_at": now - self._config.window_s, "ended_at": now}
        window = pattern.model_copy(update=times)
        self._owed += min(
            window.count * self._config.sample_fraction, self._config.samples_max_per_window
        )
        samples = [self._sample(f"{number}/{n}") for n in range(int(self._owed))]
        self._owed -= len(samples)
        made = self._made
        bare, sketches = self._sizes[number % VARIETY]
        made.windows += bare
        made.sketches += sketches
        made.samples += sum(len(sample.model_dump_json()) for sample in samples)
        made.examples += window.count
        made.window_count += 1
        return [*samples, window]

    def _window(self, number: int) -> WindowSummary:
        model, luck = self._model, self._luck
        count = round(model.examples_per_s * self._config.window_s)
        is_sketched = (number + 1) % self._config.sketch_every == 0

        def histogram(bins: int) -> tuple[int, ...]:
            return tuple(luck.multinomial(count, [1 / bins] * bins).tolist())

        return WindowSummary(
            slot=SLOT,
            version=VERSION,
            started_at=MIDNIGHT_S,
            ended_at=MIDNIGHT_S,
            count=count,
            latency_p50_us=float(luck.normal(60.0, 3.0)),
            latency_p95_us=float(luck.normal(95.0, 5.0)),
            memory_bytes=80 * MIB,
            predictions=histogram(model.labels),
            confidence=histogram(10),
            features=tuple(histogram(model.bins) for _ in range(model.features)),
            sketches=self._sketches(count * self._config.sketch_every) if is_sketched else None,
        )

    def _sketches(self, count: int) -> Sketches:
        return Sketches(
            count=count,
            features=tuple(self._sketch(count) for _ in range(self._model.features)),
            confidence=self._sketch(count),
        )

    def _sketch(self, count: int) -> str:
        sketch = kll_floats_sketch(200)
        sketch.update(self._luck.normal(size=count).astype(np.float32))
        return base64.b64encode(sketch.serialize()).decode()

    def _sample(self, reference: str) -> Sample:
        return Sample(
            slot=SLOT,
            version=VERSION,
            taken_at=self._clock.wall(),
            reference=reference,
            features=tuple(self._luck.normal(size=self._model.features).tolist()),
            prediction=1,
            confidence=0.75,
        )

    def _arrived(self, totals: OutboxTotals) -> Kept:
        """The link is back."""
        withheld = self._telemetry.samples_withheld, self._telemetry.sketches_withheld
        kept = Kept(totals, self._made, withheld)
        cursor, rows = Cursor("device", EPOCH), Rows()
        while (batch := self._outbox.next_batch()) is not None:
            payload = encode_telemetry(batch.epoch, batch.base, batch.documents)
            taken = take_batch(cursor, decode(TelemetryBatch, payload), 0.0, rows)
            self._outbox.acknowledge(EPOCH, taken.through)
            kept.batches += 1
        for row in rows.windows:
            kept.grains[self._grain(row["device_ended_at"] - row["device_started_at"])] += 1
            kept.sketches += row["sketches"] is not None
        kept.examples = sum(row["count"] for row in rows.windows)
        kept.samples = len(rows.samples)
        kept.lost, kept.merged = cursor.lost, cursor.merged
        return kept

    def _grain(self, span_s: float) -> str:
        if span_s <= self._config.window_s:
            return f"{self._config.window_s:g} s"
        return next(f"{grain:g} s" for grain in GRAINS_S.values() if span_s <= grain)


def _sizes(window: WindowSummary) -> tuple[int, int]:
    """Of a window without its sketches, and of these."""
    bare = len(window.model_copy(update={"sketches": None}).model_dump_json())
    return bare, len(window.model_dump_json()) - bare if window.sketches else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=DAYS)
    parser.add_argument("--model", type=int, choices=range(1, len(MODELS) + 1), help="one alone")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a full outbox complains at each record
    models = MODELS if options.model is None else MODELS[options.model - 1 : options.model]
    found = [
        (model, bound, Offline(model, bound, TelemetryConfig()).play(options.days))
        for model in models
        for bound in BOUNDS
    ]
    print(made_table(found[:: len(BOUNDS)], options.days))
    print()
    print(kept_table(found, options.days))
    whole = all(k.examples == k.made.examples and not k.windows_dropped for _, _, k in found)
    return 0 if whole else LOST


def made_table(found: Sequence[tuple[Model, int, Kept]], days: float) -> str:
    lines = [
        "| a day of | windows | their sketches | samples | of these within the budget "
        f"| {days:g} days as they are |",
        "|---|---|---|---|---|---|",
    ]
    for model, _, kept in found:
        made = kept.made
        a_day = (made.windows, made.sketches, made.samples, made.taken)
        sizes = " | ".join(f"{size / days / 1e6:.1f} MB" for size in a_day)
        lines.append(f"| {model} | {sizes} | {made.taken / 1e6:.0f} MB |")
    return "\n".join(lines)


def kept_table(found: Sequence[tuple[Model, int, Kept]], days: float) -> str:
    lines = [
        f"| {days:g} days offline | bound | held | windows, by length | merged | sketches shed "
        "| samples dropped | events dropped | windows dropped |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, bound, kept in found:
        totals: Any = kept.totals
        grains = ", ".join(f"{count:,} of {grain}" for grain, count in kept.grains.items())
        numbers = (
            totals.merged,
            totals.sketches_shed,
            totals.samples_dropped,
            totals.events_dropped,
            kept.windows_dropped,
        )
        cells = " | ".join(f"{number:,}" for number in numbers)
        held = f"{totals.held_bytes / 1e6:.2f} MB"
        lines.append(f"| {model} | {bound / MIB:g} MiB | {held} | {grains} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
