"""What a run shows while it goes: plain lines, and a view that fits a terminal of 24 lines."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeloop_simulators.datasets.windows import Window
from edgeloop_simulators.progress import Progress
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
