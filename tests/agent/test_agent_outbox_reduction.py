"""What a full outbox gives up, in which order, and what a merged window keeps (EL-TEL-7)."""

import sqlite3

import pytest

from edgeloop_agent.config import TelemetryConfig
from edgeloop_agent.core.reduction import (
    COARSEST_S,
    Kind,
    OutboxLimits,
    Row,
    merge_groups,
    rows_to_drop,
    rows_to_shed,
    sealed_rows,
    tally_dropped,
)
from edgeloop_agent.core.window_merge import merge, merge_key
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_agent.shell.outbox_file import open_outbox
from edgeloop_agent.shell.outbox_schema import make_schema
from edgeloop_agent.shell.stored_row import read_row
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    Comparison,
    DeviceEvent,
    Sample,
    ShadowSummary,
    Sketches,
    VersionRef,
    WindowSummary,
)
from edgeloop_simulators.bench.offline import Model, Offline

OLD = VersionRef(name="m", version="1", manifest_digest="1" * 64)
NEW = VersionRef(name="m", version="2", manifest_digest="2" * 64)
EPOCH = "a" * 16
LIMITS = OutboxLimits(batch_records_max=2, slack_share=0.0, aggregates_from_bytes=0)


def window(at, **changes):
    fields = {
        "slot": "main",
        "version": OLD,
        "started_at": at,
        "ended_at": at + 10.0,
        "count": 4,
        "latency_p50_us": 50.0,
        "latency_p95_us": 90.0,
        "predictions": (1, 3),
        "confidence": (0, 4),
        "features": ((2, 2), (4, 0)),
    }
    return WindowSummary(**fields | changes)


def sketches(size=1500):
    return Sketches(count=1, features=("A" * size,), confidence="A")


def sample(at):
    return Sample(
        slot="main",
        version=OLD,
        taken_at=at,
        reference=f"r{at}",
        features=(0.5,) * 20,
        prediction=0,
        confidence=1.0,
    )


def row(at, key=("main",), **changes):
    fields = {"started_at": at, "ended_at": at + 10.0, "size_bytes": 100}
    return Row(kind=Kind.WINDOW, key=key, **fields | changes)


def outbox_of(bodies, max_bytes):
    database = sqlite3.connect(":memory:", isolation_level=None)
    make_schema(database)
    outbox = SqliteOutbox(database, EPOCH, max_bytes, limits=LIMITS)
    for body in bodies:
        outbox.append([body.model_dump_json().encode()])
    return outbox


def bodies_in(outbox):
    """All that it holds, in order, by their kinds."""
    rows = outbox._query("SELECT document FROM records ORDER BY epoch_id, sequence")
    texts = [document.decode() for (document,) in rows]
    return [
        WindowSummary.model_validate_json(text) if '"kind":"window"' in text else text.split('"')[3]
        for text in texts
    ]


def test_a_merged_window_is_the_sum_of_its_parts():
    """And where nothing can be summed, the rule in words: the weighted mean of p50, the greatest
    p95 and memory."""
    compared = Comparison(shadow=NEW, count=4, disagreements=1)
    one = window(0.0, comparison=compared, memory_bytes=5, errors=1, sketches=sketches())
    two = window(10.0, comparison=compared, count=12, latency_p50_us=70.0, nonfinite=2)
    both = merge([one, two.model_copy(update={"latency_p95_us": 200.0, "windows": 3})])
    assert (both.started_at, both.ended_at, both.windows) == (0.0, 20.0, 4)
    assert (both.count, both.errors, both.nonfinite, both.memory_bytes) == (16, 1, 2, 5)
    assert both.predictions == (2, 6)
    assert both.confidence == (0, 8)
    assert both.features == ((4, 4), (8, 0))
    assert both.comparison == Comparison(shadow=NEW, count=8, disagreements=2)
    assert (both.latency_p50_us, both.latency_p95_us) == (65.0, 200.0)
    assert both.sketches is None
    assert merge_key(both) == merge_key(one) == merge_key(two)


def test_windows_without_an_example_are_merged_too():
    both = merge([window(0.0, count=0), window(10.0, count=0, latency_p50_us=80.0)])
    assert (both.count, both.latency_p50_us) == (0, 80.0)


@pytest.mark.parametrize(
    "other",
    [
        {"slot": "door"},
        {"version": NEW},
        {"predictions": (1, 2, 3)},
        {"features": ((1, 1, 1), (1, 1))},
        {"comparison": Comparison(shadow=NEW, count=1, disagreements=0)},
    ],
)
def test_what_cannot_be_added_is_not_merged(other):
    assert merge_key(window(0.0)) != merge_key(window(10.0, **other))


def test_windows_of_one_period_and_key_become_one():
    rows = [row(0.0), row(10.0, ("door",)), row(590.0), row(600.0), row(610.0), row(0.0, ("door",))]
    assert merge_groups(rows, 600.0) == [(0, 2), (1, 5), (3, 4)]


def test_a_window_that_a_clock_made_longer_than_the_period_is_left_alone():
    backwards, thirty_years = row(100.0, ended_at=50.0), row(0.0, ended_at=1e9)
    assert merge_groups([backwards, thirty_years, row(0.0)], COARSEST_S) == []


def test_the_oldest_go_first_and_no_more_than_needed():
    rows = [row(0.0, sketch_bytes=60), row(10.0), row(20.0, sketch_bytes=60), Row(Kind.SAMPLE, 70)]
    assert rows_to_shed(rows, 61) == [0, 2]
    assert rows_to_shed(rows, 60) == [0]
    assert rows_to_drop([*rows, Row(Kind.SAMPLE, 70)], Kind.SAMPLE, 70) == [3]
    assert rows_to_drop(rows, Kind.EVENT, 1) == []


def test_what_a_batch_may_hold_is_sealed():
    limits = OutboxLimits(batch_records_max=3, batch_bytes_max=100)
    assert sealed_rows([10, 10, 10, 10], limits) == 3
    assert sealed_rows([60, 40, 1], limits) == 2
    assert sealed_rows([500, 1], limits) == 1, "one alone may be larger"


def test_a_dropped_merged_window_counts_as_all_that_it_was():
    tally = tally_dropped([row(0.0, windows=60), Row(Kind.SAMPLE, 1), Row(Kind.EVENT, 1)])
    assert (tally.windows_dropped, tally.samples_dropped, tally.events_dropped) == (60, 1, 1)
    assert tally.dropped + tally.windows_merged == 3, "as many records as there were"


def test_each_rung_is_taken_only_when_the_one_before_gives_no_more():
    """EL-TEL-7: sketches, then ever longer windows, samples, events, and windows last. A month's
    records meet an ever smaller bound, all at once."""
    bodies = [
        body
        for n in range(300)
        for body in (
            window(n * 1500.0, sketches=sketches() if n % 10 == 0 else None),
            window(n * 1500.0 + 10.0),
            *([sample(n)] if n % 5 == 0 else []),
            *([DeviceEvent(at=n, name="e", detail="x" * 100)] if n % 20 == 0 else []),
        )
    ]
    whole = outbox_of(bodies, 2**30)
    full = whole.totals().held_bytes
    seen = {rungs_taken(whole, int((full + 1_000) * 0.9**step)) for step in range(44)}
    assert seen == set(range(8)), "each was the last one for some bound"


def rungs_taken(whole, bound):
    database = sqlite3.connect(":memory:", isolation_level=None)
    whole._database.backup(database)
    outbox = SqliteOutbox(database, "b" * 16, bound, limits=LIMITS)
    outbox.append([DeviceEvent(at=0.0, name="last").model_dump_json().encode()])
    totals, held = outbox.totals(), bodies_in(outbox)[2:-2]
    assert totals.held_bytes <= bound
    windows = [body for body in held if not isinstance(body, str)]
    longest = max((w.ended_at - w.started_at for w in windows), default=COARSEST_S)
    windows_dropped = totals.dropped - totals.samples_dropped - totals.events_dropped
    taken = [
        totals.sketches_shed > 0,
        totals.merged > 0,
        longest > 600.0,
        longest > 3600.0,
        totals.samples_dropped > 0,
        totals.events_dropped > 0,
        windows_dropped > 0,
    ]
    assert taken == sorted(taken, reverse=True), f"{bound}: {taken}"
    spent = [
        not any(w.sketches for w in windows),
        len({w.started_at // 600.0 for w in windows}) == len(windows),
        len({w.started_at // 3600.0 for w in windows}) == len(windows),
        len({w.started_at // COARSEST_S for w in windows}) == len(windows),
        "sample" not in held,
        "event" not in held,
    ]
    assert all(spent[: max(0, sum(taken) - 1)]), f"{sum(taken)} rungs were taken, and {spent}"
    return sum(taken)


def test_an_outbox_of_an_older_agent_goes_on(tmp_path):
    outbox = open_outbox(tmp_path, 10**6)
    outbox.append([window(0.0).model_dump_json().encode()])
    for column in ("merged", "sketches_shed", "samples_dropped", "events_dropped"):
        outbox._database.execute(f"ALTER TABLE epochs DROP COLUMN {column}")
    outbox._database.execute("UPDATE epochs SET dropped = 3")
    outbox.close()
    later = open_outbox(tmp_path, 10**6)
    assert (later.totals().held, later.totals().dropped, later.totals().merged) == (1, 3, 0)
    assert [count.held for count in later.counts(9)] == [1, 0]
    later.close()


def test_windows_that_would_outgrow_a_message_are_not_merged():
    """Histograms of millions have more digits than their parts."""
    wide = tuple((9,) * 64 for _ in range(800))
    bodies = [window(n * 10.0, features=wide) for n in range(8)]
    assert len(bodies[0].model_dump_json()) > PAYLOAD_MAX_BYTES * 3 // 4
    outbox = outbox_of(bodies, 5 * len(bodies[0].model_dump_json()) + 100)
    sizes = outbox._query("SELECT LENGTH(document) FROM records")
    assert all(size < PAYLOAD_MAX_BYTES for (size,) in sizes)
    assert outbox.totals().dropped == 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("max_bytes", [16 << 20, 256 << 10])
def test_thirty_days_offline_lose_no_count(max_bytes):
    """With longer windows and fewer examples than by default: `bench.offline` plays the default."""
    made = Offline(Model(3, 10, 4, 0.1), max_bytes, TelemetryConfig(window_s=600.0)).play(30)
    assert made.examples == made.made.examples == 30 * 86_400 * 0.1
    assert made.windows_dropped == 0
    assert made.totals.held_bytes <= max_bytes
    assert made.lost == made.totals.dropped == made.totals.samples_dropped
    assert made.merged == made.totals.merged
    if max_bytes == 16 << 20:
        assert made.merged == made.lost == 0, "below the bound it is all as it was"
        assert made.samples > 4_000
    else:
        assert made.totals.samples_dropped
        coarse = made.grains["86400 s"]
        assert coarse >= 28, "nothing is dropped before all is merged down to days"


def test_what_a_challenger_showed_goes_with_the_samples():
    """No count of what was answered hangs on it."""
    shown = ShadowSummary(champion=OLD, window=window(0.0, version=NEW))
    assert read_row(shown.model_dump_json().encode()).kind is Kind.SAMPLE
    assert read_row(window(0.0).model_dump_json().encode()).kind is Kind.WINDOW
