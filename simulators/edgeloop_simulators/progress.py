"""The run in the terminal: a live view, or plain lines where there is no terminal.

Invariants: reads what the testbed knows, changes nothing; never raises into the story.
"""

import time
from collections import Counter
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from edgeloop_simulators import scenario as plan
from edgeloop_simulators.scenario import Scenario
from edgeloop_simulators.truth import Truth

BAR_CHARS: Final = 40
OPEN_TO_THIS_MACHINE: Final = (
    "On this machine only: no certificates, unsigned models, and nobody is asked who they are."
)
REFRESH_PER_S: Final = 4
OUTCOMES_SHOWN: Final = 2
VERSION_STYLES: Final = ("cyan", "green", "magenta", "yellow", "blue")


def title_of(step: plan.Step, scenario: Scenario) -> str:
    """What a step does, for people."""
    match step:
        case plan.BreakSensor():
            return f"One device's {step.sensor} breaks; it alone is found"
        case plan.ChangeWorld():
            return f"The world changes ({scenario.before} → {scenario.after}); drift is noticed"
        case plan.PublishBad(kind="permuted"):
            return "A version with permuted labels is published, and stopped"
        case plan.PublishBad():
            return "A version that yields NaN is published, and stopped"
        case plan.Observe():
            return "Devices infer and report"
        case plan.Plain():
            return {
                "publish_first": "Start the controller; train and publish v1",
                "start_devices": "Start the devices",
                "roll_out_first": "Roll v1 out",
                "retrain": "Late labels arrive; retrain, evaluate, publish v2",
                "recover": "Roll v2 out; accuracy recovers",
            }[step.do]


class Progress(AbstractContextManager["Progress"]):
    """A context; within it the story reports its steps (`world.Listener`)."""

    def __init__(self, scenario: Scenario, truth: Truth, console: Console, devices: int) -> None:
        self._titles = [title_of(step, scenario) for step in scenario.steps]
        self._truth, self._console, self._devices = truth, console, devices
        self._begun = time.monotonic()
        self._began: dict[int, float] = {}
        self._took: dict[int, float] = {}
        self._outcomes: dict[int, tuple[str, bool]] = {}
        self._styles: dict[str, str] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._title = scenario.title
        self._over = False
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                get_renderable=self._view, console=console, refresh_per_second=REFRESH_PER_S
            )

    def __enter__(self) -> Self:
        self._console.print(OPEN_TO_THIS_MACHINE, style="dim", soft_wrap=True)
        if self._live:
            self._live.start()
        else:
            self._console.print(f"{self._title}: {len(self._titles)} steps")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        if self._live:
            self._live.vertical_overflow = "visible"
            self._live.stop()

    def step_started(self, index: int) -> None:
        self._began[index] = time.monotonic()
        if not self._live:
            self._line(f"{index + 1}. {self._titles[index]}")

    def step_ended(self, index: int, outcome: str, failed: bool) -> None:
        self._took[index] = time.monotonic() - self._began[index]
        self._outcomes[index] = (outcome, failed)
        if not self._live:
            self._line(f"   {'FAILED: ' if failed else ''}{outcome} ({self._took[index]:.1f} s)")

    def tick(self) -> None:
        """Called while the story waits; the live view refreshes itself."""

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._begun
        self._console.print(
            f"[{elapsed:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True
        )

    def _view(self) -> Panel:
        elapsed = time.monotonic() - self._begun
        title = f"[bold]{self._title}[/] · {elapsed:.0f} s"
        parts = Group(self._now(), Text(), self._steps())
        return Panel(parts, title=title, title_align="left", border_style="dim")

    def _steps(self) -> Table:
        """Outcomes of the last steps alone, so that all fits a terminal; of all at the end."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(ratio=1)
        table.add_column(justify="right", width=7)
        for index, title in enumerate(self._titles):
            outcome, failed = self._outcomes.get(index, ("", False))
            shown = self._over or failed or index >= len(self._outcomes) - OUTCOMES_SHOWN
            if index in self._outcomes:
                sign: Any = Text("✗", style="red") if failed else Text("✓", style="green")
                text = Text(title, no_wrap=not self._over, overflow="ellipsis")
                if shown:
                    text.append("\n" + outcome, style="red" if failed else "dim")
                took = f"{self._took[index]:.0f} s"
            elif index in self._began:
                sign, text = self._spinner, Text(title, style="bold")
                took = f"{time.monotonic() - self._began[index]:.0f} s"
            else:
                sign, text, took = Text("·", style="dim"), Text(title, style="dim"), ""
            table.add_row(sign, text, Text(took, style="dim"))
        return table

    def _now(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", width=10)
        table.add_column()
        table.add_row("accuracy", self._accuracy())
        table.add_row("versions", self._versions())
        if self._truth.marks:
            table.add_row(
                "last event", Text(self._truth.marks[-1].text, overflow="ellipsis", no_wrap=True)
            )
        return table

    def _accuracy(self) -> Text:
        rolling = self._truth.rolling_accuracy()
        if rolling is None:
            return Text("no answers yet", style="dim")
        share, answers = rolling
        style = "green" if share >= 0.75 else "yellow" if share >= 0.65 else "red"
        filled = round(share * BAR_CHARS)
        return Text.assemble(
            ("█" * filled, style),
            ("░" * (BAR_CHARS - filled), "dim"),
            (f" {share:.2f}", "bold"),
            (f" of {answers} answers", "dim"),
        )

    def _versions(self) -> Text:
        running = self._truth.versions()
        if not running:
            return Text(f"none yet on {self._devices} devices", style="dim")
        text = Text()
        for device in sorted(running):
            text.append("■ ", style=self._style(running[device]))
        counted = Counter(running.values())
        for version, count in sorted(counted.items()):
            text.append(f" v{version.rpartition('@')[2]} on {count}", style=self._style(version))
        return text

    def _style(self, version: str) -> str:
        known = self._styles
        return known.setdefault(version, VERSION_STYLES[len(known) % len(VERSION_STYLES)])
