"""What a run shows while it goes: plain lines, and a view that fits a terminal of 24 lines."""

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgeloop_simulators.cli import app
from edgeloop_simulators.datasets.windows import Window
from edgeloop_simulators.progress import Progress
from edgeloop_simulators.record import database_of
from edgeloop_simulators.scenario import load_scenario
from edgeloop_simulators.truth import Truth

SCENARIO = load_scenario("watch", environment={}).scenario


@pytest.fixture
def truth(tmp_path: Path) -> Iterator[Truth]:
    made = Truth(tmp_path)
    made.trained_on("d", [])
    for i in range(10):
        device, reference = f"watch-{i}", f"r0:{i}-{i + 1}"
        window = Window(reference, "ROW", "g", np.zeros(1, dtype=np.float32))
        made.played(device, window, "before", False)
        answer = {"reference": reference, "label": "ROW" if i < 8 else "PEN"}
        made.answered(device, answer | {"version": "exercise@1", "manifest_digest": "d"})
    made.mark("world.changed", "right → left")
    yield made
    made.close()


def test_without_a_terminal_it_is_plain_lines(truth: Truth) -> None:
    out = io.StringIO()
    with Progress(SCENARIO, truth, Console(file=out, width=100), 10) as progress:
        progress.step_started(0)
        progress.step_ended(0, "all [well]", failed=False)
        progress.step_started(1)
        progress.step_ended(1, "no hello", failed=True)
    text = out.getvalue()
    assert "1. Start the controller; train and publish v1" in text
    assert "all [well]" in text
    assert "FAILED: no hello" in text
    assert "\x1b" not in text


def test_without_a_terminal_no_line_is_wrapped(truth: Truth) -> None:
    out = io.StringIO()
    outcome = "a long outcome in many words " * 20
    with Progress(SCENARIO, truth, Console(file=out, width=80), 10) as progress:
        progress.step_started(0)
        progress.step_ended(0, outcome, failed=False)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert outcome in lines[-1]


def test_the_figures_are_printed_on_one_line_each(handmade_run: Path) -> None:
    """By `summarize` into a pipe, in a place with a long path; 80 columns are not the limit."""
    out = handmade_run.parent / ("a directory with a long name " * 4)
    handmade_run.rename(out)
    verdict = "it disagrees with another version on more than the bound, " * 5
    with closing(sqlite3.connect(database_of(out))) as connection, connection:
        connection.execute("update rollouts set verdict = ? where status = 'halted'", (verdict,))
    result = CliRunner().invoke(app, ["summarize", str(out)])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert f"report:  {out / 'report.html'}" in lines
    assert verdict.strip() in [line.strip() for line in lines]


def test_the_live_view_fits_a_small_terminal_until_it_is_over(truth: Truth) -> None:
    terminal = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    console = Console(file=io.StringIO(), width=80)
    with Progress(SCENARIO, truth, terminal, 10) as progress:
        for index in range(len(SCENARIO.steps)):
            progress.step_started(index)
            progress.step_ended(index, f"outcome {index} " + "x" * 150, failed=False)
            with console.capture() as captured:
                console.print(progress._view())
            assert captured.get().count("\n") <= 24
        assert "0.80" in captured.get()
        assert "v1 on 10" in captured.get()
    with console.capture() as captured:
        console.print(progress._view())
    assert all(f"outcome {index}" in captured.get() for index in range(len(SCENARIO.steps)))
