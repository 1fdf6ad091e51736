"""One row of a benchmark: ours, the floor, and the ratio that counts."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    what: str
    ours: float
    floor: float
    unit: str
    floor_is: str
    digits: int = 1

    @property
    def ratio(self) -> float:
        return self.ours / self.floor


def show(title: str, rows: Iterable[Row], console: Console) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading, justify in (("", "left"), ("ours", "right"), ("floor", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("ratio", justify="right")
    table.add_column("the floor is")
    for row in rows:
        table.add_row(
            row.what,
            f"{row.ours:,.{row.digits}f} {row.unit}",
            f"{row.floor:,.{row.digits}f} {row.unit}",
            f"{row.ratio:.2f}",
            row.floor_is,
        )
    console.print(table)
