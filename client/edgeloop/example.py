"""Rows of what a model was trained on: names and width of its input, and the baseline of its drift.

Invariants: features are float32, as devices see them; only what is a feature is one: columns named
`label` and `group` are not, as in the controller's baseline files.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgeloop.errors import ModelError
from edgeloop.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL: Final = "label"
GROUP: Final = "group"
BASELINE_ROWS_MIN: Final = 20
"""Fewer rows say how the input looks, and are no baseline."""


@dataclass(frozen=True, eq=False)
class Example:
    """`rows` is (n, features); `y` and `groups` are n texts, or None."""

    rows: "NDArray[np.float32]"
    names: tuple[str, ...] | None
    y: tuple[str, ...] | None
    groups: tuple[str, ...] | None

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    @property
    def is_baseline(self) -> bool:
        return len(self.rows) >= BASELINE_ROWS_MIN

    def ordered(self, names: Sequence[str]) -> "Example":
        """With the columns in the order of `names`. Raises ModelError naming those that miss."""
        if tuple(names) == self.names or (self.names is None and len(names) == self.width):
            return self
        if self.names is None:
            raise ModelError(
                f"the example has {self.width} columns, and the model {len(names)} features",
                "give the rows that the model was trained on",
            )
        missing = [name for name in names if name not in self.names]
        if missing or len(names) != len(self.names):
            raise ModelError(
                f"the example's columns {', '.join(self.names[:8])} are not the model's features "
                f"{', '.join(names[:8])}",
                "give the rows that the model was trained on, without other columns",
            )
        at = [self.names.index(name) for name in names]
        return Example(self.rows[:, at], tuple(names), self.y, self.groups)

    def parquet(self, names: Sequence[str]) -> bytes:
        """The controller's baseline file."""
        pyarrow = require("pyarrow", "baseline", "a baseline")
        parquet = require("pyarrow.parquet", "baseline", "a baseline")
        columns: dict[str, Any] = {name: self.rows[:, at] for at, name in enumerate(names)}
        if self.y is not None:
            columns[LABEL] = list(self.y)
        if self.groups is not None:
            columns[GROUP] = list(self.groups)
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), file)
        return file.getvalue()


def read_example(given: Any, y: Any = None, groups: Any = None) -> Example:
    """A DataFrame, an Arrow table, an array, a tensor or lists of numbers. Raises ModelError."""
    names: tuple[str, ...] | None = None
    if hasattr(given, "to_pandas"):
        require("pandas", "dataframes", "an example that is a table")
        given = given.to_pandas()
    if hasattr(given, "columns"):
        y = given[LABEL] if y is None and LABEL in given.columns else y
        groups = given[GROUP] if groups is None and GROUP in given.columns else groups
        given = given.drop(columns=[c for c in (LABEL, GROUP) if c in given.columns])
        names = tuple(map(str, given.columns))
    rows = _numbers(given)
    return Example(rows, names, _texts(y, len(rows), "y"), _texts(groups, len(rows), "groups"))


def _numbers(given: Any) -> "NDArray[np.float32]":
    numpy = require("numpy", "baseline", "an example")
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        rows = numpy.asarray(given, dtype=numpy.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the example is not of numbers: {error}", "devices feed a model float32 features"
        ) from error
    if rows.ndim != 2 or not rows.size:
        raise ModelError(
            f"the example has the shape {rows.shape}", "give rows of features: (n, features)"
        )
    if not numpy.isfinite(rows).all():
        raise ModelError("the example has values that are missing or infinite", "leave them out")
    return rows  # type: ignore[no-any-return]


def _texts(given: Any, count: int, what: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    texts = tuple(str(one) for one in given)
    if len(texts) != count:
        raise ModelError(f"{what} has {len(texts)} entries for {count} rows of the example")
    return texts
