"""What the fleet saw, as DataFrames.

Invariants: pages are read one after the other, at most `rows_max` rows; times are UTC timestamps,
names are strings, counts are whole numbers, also in a frame without rows; pandas is imported only
when a frame is made.
"""

import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from edgeloop.client import Client
from edgeloop.documents.base import Page
from edgeloop.documents.fleet import VersionDetail
from edgeloop.documents.loop import AlarmDocument, DriftDocument, SampleDocument, ScopeScore
from edgeloop.documents.telemetry import WindowDocument
from edgeloop.errors import ApiError, EdgeloopError
from edgeloop.extras import require

if TYPE_CHECKING:
    import pandas as pd

PAGE_ROWS: Final = 1000
ROWS_MAX: Final = 100_000

When = datetime | timedelta | float
Item = TypeVar("Item", WindowDocument, SampleDocument)

WINDOW_DTYPES: Final = {
    "id": "int64",
    "received_at": "time",
    "device": "string",
    "slot": "string",
    "version": "string",
    "started_at": "time",
    "ended_at": "time",
    "windows": "int64",
    "examples": "int64",
    "errors": "int64",
    "nonfinite": "int64",
    "latency_p50_us": "float64",
    "latency_p95_us": "float64",
    "memory_bytes": "int64",
    "compared": "int64",
    "disagreements": "int64",
}
"""`started_at` and `ended_at` are by the device's own clock. `predicted_<label>` follow."""

SAMPLE_DTYPES: Final = {
    "id": "int64",
    "received_at": "time",
    "device": "string",
    "slot": "string",
    "version": "string",
    "taken_at": "time",
    "reference": "string",
    "predicted": "string",
    "confidence": "float64",
    "label": "string",
    "labelled_at": "time",
}
"""`taken_at` is by the device's own clock. The features follow by their names."""

SCOPE_DTYPES: Final = {
    "at": "time",
    "slot": "string",
    "version": "string",
    "scope": "string",
    "key": "string",
    "score": "float64",
    "threshold": "float64",
    "examples": "int64",
    "cause": "string",
    "sensor": "string",
    "predictions_psi": "float64",
    "confidence_psi": "float64",
    "explanation": "string",
}
FEATURE_DTYPES: Final = {
    "at": "time",
    "slot": "string",
    "version": "string",
    "scope": "string",
    "key": "string",
    "feature": "string",
    "sensor": "string",
    "psi": "float64",
    "ks": "float64",
}
ALARM_DTYPES: Final = {
    "id": "int64",
    "raised_at": "time",
    "cleared_at": "time",
    "slot": "string",
    "version": "string",
    "scope": "string",
    "key": "string",
    "cause": "string",
    "sensor": "string",
    "score": "float64",
    "threshold": "float64",
}


def seconds(when: When | None) -> float | None:
    """Seconds since 1970; a datetime without a zone is local time, a timedelta is before now."""
    if when is None:
        return None
    if isinstance(when, timedelta):
        return time.time() - when.total_seconds()
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when)


def telemetry(client: Client, wanted: Mapping[str, Any], rows_max: int) -> "pd.DataFrame":
    windows = _pages(client, Page[WindowDocument], "/telemetry/windows", wanted, rows_max)
    labels = dict.fromkeys(label for one in windows for label in one.predictions)
    rows = (
        _row(one, WINDOW_DTYPES, device=one.device_id, examples=one.count)
        | {"started_at": one.device_started_at, "ended_at": one.device_ended_at}
        | {f"predicted_{label}": n for label, n in one.predictions.items()}
        for one in windows
    )
    counts = {f"predicted_{label}": "Int64" for label in labels}
    return _frame(rows, WINDOW_DTYPES | counts)


def samples(client: Client, wanted: Mapping[str, Any], rows_max: int) -> "pd.DataFrame":
    found = _pages(client, Page[SampleDocument], "/samples", wanted, rows_max)
    names = _FeatureNames(client)
    rows = []
    features: dict[str, str] = {}
    for one in found:
        values = dict(zip(names.of(one), one.features, strict=True))
        features |= dict.fromkeys(values, "float64")
        row = _row(one, SAMPLE_DTYPES, device=one.device_id, predicted=one.predicted_label)
        rows.append(row | {"taken_at": one.device_taken_at} | values)
    return _frame(rows, SAMPLE_DTYPES | features)


def drift(document: DriftDocument, by: Literal["scope", "feature"]) -> "pd.DataFrame":
    if by == "scope":
        return _frame((_row(one, SCOPE_DTYPES) for one in document.scores), SCOPE_DTYPES)
    if by != "feature":
        raise EdgeloopError(f"drift by {by!r} is not known", 'by="scope" or by="feature"')
    rows = (
        _row(one, FEATURE_DTYPES, feature=f.name, sensor=f.sensor, psi=f.psi, ks=f.ks)
        for one in document.scores
        for f in one.features
    )
    return _frame(rows, FEATURE_DTYPES)


def alarms(document: DriftDocument) -> "pd.DataFrame":
    return _frame((_row(one, ALARM_DTYPES) for one in document.alarms), ALARM_DTYPES)


def _pages(
    client: Client, kind: type[Page[Item]], path: str, wanted: Mapping[str, Any], rows_max: int
) -> list[Item]:
    """Warns when there is more than `rows_max`."""
    found: list[Item] = []
    after: int | None = 0
    while after is not None and len(found) < rows_max:
        limit = min(PAGE_ROWS, rows_max - len(found))
        page = client.read(kind, path, **wanted, after=after, limit=limit)
        found += page.items
        after = page.next
    if after is not None and client.read(kind, path, **wanted, after=after, limit=1).items:
        warnings.warn(
            f"{path} holds more than {rows_max} rows: these are the oldest; narrow what you ask "
            "for, or give `rows_max`",
            stacklevel=4,
        )
    return found


class _FeatureNames:
    """Of versions, asked for once each. A name that is a column's already is `feature_<name>`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, str], list[str]] = {}

    def of(self, sample: SampleDocument) -> list[str]:
        ref = sample.version
        if ref is None:
            return self._numbered(sample)
        key = (ref.name, ref.version)
        if key not in self._known:
            self._known[key] = self._asked(*key)
        names = self._known[key]
        return names if len(names) == len(sample.features) else self._numbered(sample)

    def _asked(self, name: str, version: str) -> list[str]:
        try:
            detail = self._client.read(VersionDetail, f"/models/{name}/versions/{version}")
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        return [
            f"feature_{feature.name}" if feature.name in SAMPLE_DTYPES else feature.name
            for feature in detail.manifest.features
        ]

    @staticmethod
    def _numbered(sample: SampleDocument) -> list[str]:
        return [f"feature_{number}" for number in range(len(sample.features))]


def _row(
    document: WindowDocument | SampleDocument | ScopeScore | AlarmDocument,
    dtypes: Mapping[str, str],
    **given: Any,
) -> dict[str, Any]:
    """The document's fields that are columns, and what is given."""
    row = {name: getattr(document, name) for name in dtypes if hasattr(document, name)}
    ref = document.version
    return row | {"version": f"{ref.name}@{ref.version}" if ref else None} | given


def _frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, str]) -> "pd.DataFrame":
    pandas = require("pandas", "dataframes", "a DataFrame")
    frame = pandas.DataFrame.from_records(list(rows), columns=list(dtypes))
    for name, dtype in dtypes.items():
        if dtype == "time":
            times = pandas.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
            frame[name] = times.dt.as_unit("ms")  # more than that a float of seconds cannot tell
        else:
            frame[name] = frame[name].astype(dtype)
    return frame
