"""The report: holds every event, escapes what it shows, needs no network; badges never overlap."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgeloop_simulators import charts, timeline
from edgeloop_simulators.record import read_record, run_directory
from edgeloop_simulators.report import render
from edgeloop_simulators.summary import summarize


def page_of(out: Path) -> str:
    record = read_record(out)
    return render(record, summarize(record))


def test_events_are_in_order_and_all_there(handmade_run: Path) -> None:
    events = timeline.events_of(read_record(handmade_run))
    assert [e.at_s for e in events] == sorted(e.at_s for e in events)
    texts = " | ".join(event.text for event in events)
    for expected in (
        "right → left",
        "gyroscope-x of d3 breaks",
        "alarm: sensor_fault (gyroscope-x) on d3",
        "alarm: world_changed on the fleet",
        "v2: wave 1 of 2",
        "v2: wave 2 of 2",
        "v2: rollout done",
        "v3: rollout halted",
    ):
        assert expected in texts
    halted = next(e for e in events if e.text == "v3: rollout halted")
    assert (halted.tone, halted.detail) == ("bad", "disagrees with 2 on 98%")


def test_the_page_marks_every_event_in_the_chart_and_in_the_table(handmade_run: Path) -> None:
    page = page_of(handmade_run)
    events = timeline.events_of(read_record(handmade_run))
    badges = re.findall(r'<g class="badge \w+"><title>(.*?)</title>', page)
    assert len(badges) == len(events) == len(re.findall(r'<span class="dot \w+">', page))
    assert badges == [event.text for event in events]


def test_each_version_has_its_line_and_its_spans(handmade_run: Path) -> None:
    page = page_of(handmade_run)
    assert {"line v1", "line v2", "fill v1", "fill v2", "fill v3"} <= set(
        re.findall(r'class="((?:line|fill) v\d)"', page)
    )


def test_the_page_is_well_formed_and_loads_nothing(handmade_run: Path) -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {name for name, _ in attrs}
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    page = page_of(handmade_run)
    Checker().feed(page)
    assert open_tags == []
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page


def test_text_of_the_run_is_escaped(handmade_run: Path) -> None:
    path = run_directory(handmade_run) / "marks.jsonl"
    path.write_text(path.read_text().replace("gyroscope-x of d3 breaks", "<script>x</script>"))
    page = page_of(handmade_run)
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_figures_are_in_words_not_in_code(handmade_run: Path) -> None:
    judged = {
        "accuracy": 0.8723404255,
        "against": {"name": "exercise", "version": "1", "manifest_digest": "1" * 64},
    }
    record = read_record(handmade_run)
    page = render(record, summarize(record) | {"evaluation_of_v2": {"held_back": judged}})
    assert "held_back: accuracy 0.872, against exercise@1<" in page
    assert "<td>yes</td>" in page  # sensor_fault_found


def test_a_run_that_stopped_early_has_a_report(handmade_run: Path) -> None:
    """Only its start is known, and nobody answered."""
    marks = run_directory(handmade_run) / "marks.jsonl"
    marks.write_text(marks.read_text().splitlines(keepends=True)[0])
    (run_directory(handmade_run) / "answers.jsonl").write_text("")
    assert "did not happen" in page_of(handmade_run)


@given(st.lists(st.floats(0, 1000), max_size=40))
def test_badges_of_one_lane_keep_their_distance(positions: list[float]) -> None:
    positions.sort()
    lanes = charts.lanes(positions, 20)
    for lane in set(lanes):
        mine = [p for p, own in zip(positions, lanes, strict=True) if own == lane]
        assert all(b - a >= 20 for a, b in pairwise(mine))


def test_spans_join_seconds_of_one_version() -> None:
    steps = {1: "v1", 2: "v1", 3: "v2", 6: "v2"}
    assert list(timeline._spans(steps)) == [(1, 3, "v1"), (3, 4, "v2"), (6, 7, "v2")]
