"""Two runs of virtual worlds side by side: what changed by more than a tolerance.

Invariants: compares the figures and expectations of report.json alone; a figure that only one run
has is a change; the order is that of the first run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.virtual.report.document import FORMAT
from edgeloop_simulators.virtual.report.page import shown

FILE: Final = "report.json"
ABSENT: Final = "absent"


@dataclass(frozen=True)
class Row:
    """`change`: B less A over A, for numbers; None where that says nothing."""

    name: str
    a: str
    b: str
    change: float | None
    changed: bool


def read_report(path: Path) -> dict[str, Any]:
    """A report's directory, or its report.json. Raises RecordError."""
    file = path / FILE if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no report of a virtual world ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError(f"{file} was written by another release: run the scenario again")
    return document


def compare(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float = 0.0) -> tuple[Row, ...]:
    """`tolerance`: the relative change of a number that counts as none."""
    rows = [
        _figure(name, a["figures"].get(name), b["figures"].get(name), tolerance)
        for name in dict.fromkeys([*a["figures"], *b["figures"]])
    ]
    met_a, met_b = _met(a), _met(b)
    rows += [
        _text(f"expected: {what}", met_a.get(what, ABSENT), met_b.get(what, ABSENT))
        for what in dict.fromkeys([*met_a, *met_b])
    ]
    return tuple(rows)


def comparison_document(rows: tuple[Row, ...], tolerance: float) -> dict[str, Any]:
    """For programs."""
    return {
        "tolerance": tolerance,
        "changed": [row.name for row in rows if row.changed],
        "rows": [asdict(row) for row in rows],
    }


def _figure(
    name: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, tolerance: float
) -> Row:
    if a is None or b is None:
        return _text(name, shown(a) if a else ABSENT, shown(b) if b else ABSENT)
    before, after = a["value"], b["value"]
    if not isinstance(before, (int, float)) or not isinstance(after, (int, float)):
        return _text(name, shown(a), shown(b))
    change = (after - before) / abs(before) if before else None
    changed = after != before if change is None else abs(change) > tolerance
    return Row(name, shown(a), shown(b), change, changed)


def _text(name: str, a: str, b: str) -> Row:
    return Row(name, a, b, None, a != b)


def _met(document: Mapping[str, Any]) -> dict[str, str]:
    """An expectation is known by what it is of and what was expected."""
    return {
        f"{check['what']} {check['expected']}": "met" if check["passed"] else "not met"
        for check in document["expectations"]
    }
