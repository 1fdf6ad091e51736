"""How a followed rollout is shown: a bar in a terminal, a bar in a notebook, lines elsewhere.

Invariants: rich and IPython are imported only where they draw; a line is printed when something
changed, not at every look.
"""

import html
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgeloop.documents.rollouts import RolloutDetail

if TYPE_CHECKING:
    from rich.progress import Progress

SETTLED: Final = frozenset({"committed", "failed", "withdrawn", "ineligible", "held"})

BAR_CHARS: Final = 24


class Shown(Protocol):
    def update(self, document: RolloutDetail, problem: str) -> None:
        """`problem`: why the document is not of now; empty: it is."""


def share_done(document: RolloutDetail) -> float:
    """Of the whole rollout, from 0 to 1: waves behind it, and settled devices of the present."""
    if document.status == "done":
        return 1.0
    here = [one.phase for one in document.devices if one.wave == document.wave]
    settled = sum(phase in SETTLED for phase in here) / len(here) if here else 0.0
    return max(0.0, document.wave - 1 + settled) / len(document.waves)


def sentence(document: RolloutDetail, problem: str = "") -> str:
    """Where it stands, on one line."""
    one = document
    counts = ", ".join(f"{n} {phase}" for phase, n in one.members.model_dump().items() if n)
    wave = "in shadow" if one.is_in_shadow else f"wave {one.wave}/{len(one.waves)}"
    text = f"{one.name}@{one.version} {wave} {one.status}"
    text += f": {counts or 'no device yet'}"
    text += f"; {one.verdict}" if one.verdict else ""
    return f"{text} [{problem}]" if problem else text


@contextmanager
def progress(show: bool) -> Iterator[Shown]:
    if not show:
        yield _Nothing()
    elif _in_notebook():
        yield _NotebookBar()
    elif sys.stdout.isatty():
        with _terminal_bar() as bar:
            yield bar
    else:
        yield _Lines()


class _Nothing:
    def update(self, document: RolloutDetail, problem: str) -> None:
        pass


class _Lines:
    def __init__(self) -> None:
        self._said = ""

    def update(self, document: RolloutDetail, problem: str) -> None:
        text = sentence(document, problem)
        if text != self._said:
            self._said = text
            print(text, flush=True)


class _TerminalBar:
    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._task = bar.add_task("", total=1.0)

    def update(self, document: RolloutDetail, problem: str) -> None:
        text = sentence(document, problem)
        self._bar.update(self._task, completed=share_done(document), description=text)


@contextmanager
def _terminal_bar() -> Iterator[Shown]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        BarColumn(BAR_CHARS, table_column=Column(min_width=BAR_CHARS)),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1)),
    )
    with Progress(*columns, expand=True) as bar:
        yield _TerminalBar(bar)


class _NotebookBar:
    """One output that is drawn again; as text where HTML is not shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def update(self, document: RolloutDetail, problem: str) -> None:
        from IPython.display import display

        text, share = sentence(document, problem), share_done(document)
        drawn = {
            "text/plain": text,
            "text/html": f'<progress value="{share:.3f}" max="1"></progress> {html.escape(text)}',
        }
        if self._handle is None:
            self._handle = display(drawn, raw=True, display_id=True)
        else:
            self._handle.update(drawn, raw=True)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; nothing is imported to see."""
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None
