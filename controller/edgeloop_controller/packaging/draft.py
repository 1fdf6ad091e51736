"""model.toml: what a person writes of a model; and the table that the baseline is made from."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeloop_controller.errors import PackagingError
from edgeloop_protocol.config import parse_toml
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.limits import MANIFEST_MAX_BYTES
from edgeloop_protocol.manifest import Manifest, ManifestDraft

Floats = NDArray[np.float32]

GROUP_COLUMN: Final = "group"
LABEL_COLUMN: Final = "label"
BASELINE_ROWS_MIN: Final = 20
BASELINE_ROWS_MAX: Final = 1_000_000


@dataclass(frozen=True)
class BaselineTable:
    """`features` (n, features) finite float32, in the manifest's order; the others (n,) or None."""

    features: Floats
    groups: NDArray[np.generic] | None
    labels: NDArray[np.generic] | None


def load_draft(toml_text: str, where: str) -> ManifestDraft:
    """Read model.toml; `where` names it in errors. Raises PackagingError."""
    if len(toml_text.encode()) > MANIFEST_MAX_BYTES:
        raise PackagingError(f"{where} is larger than {MANIFEST_MAX_BYTES} bytes")
    try:
        return ManifestDraft.model_validate(parse_toml(toml_text, where))
    except ConfigError as error:
        raise PackagingError(str(error), "see the manifest's keys in docs/spec/schemas") from error
    except ValidationError as error:
        problems = [
            f"{where}: {'.'.join(map(str, p['loc'])) or 'document'}: {p['msg']}"
            for p in error.errors(include_url=False, include_input=False)
        ]
        known = ", ".join(sorted(ManifestDraft.model_fields))
        raise PackagingError("\n".join(problems), f"known keys: {known}") from error


def draft_like(manifest: Manifest) -> ManifestDraft:
    """The draft for a retrained successor of `manifest`: all that its file does not say."""
    return ManifestDraft(
        description=manifest.description,
        preprocessing=manifest.preprocessing,
        features=tuple(feature.name for feature in manifest.features),
        sensors={feature.name: feature.sensor for feature in manifest.features},
        labels=manifest.labels,
        feeds=manifest.feeds,
        stateful=manifest.stateful or None,
        requires=manifest.requires,
    )


def read_baseline(parquet: bytes, where: str) -> pa.Table:
    """Read an uploaded baseline Parquet. Raises PackagingError."""
    try:
        file = pq.ParquetFile(io.BytesIO(parquet))
        if file.metadata.num_rows > BASELINE_ROWS_MAX:
            raise PackagingError(
                f"{where} has {file.metadata.num_rows} rows; the limit is {BASELINE_ROWS_MAX}",
                "sample it down",
            )
        return file.read()
    except (pa.ArrowException, OSError) as error:
        raise PackagingError(f"{where} is not a Parquet file: {error}") from error


def feature_columns(table: pa.Table) -> tuple[str, ...]:
    """The columns that are features, in the table's order."""
    special = (GROUP_COLUMN, LABEL_COLUMN)
    return tuple(name for name in table.column_names if name not in special)


def baseline_rows(table: pa.Table, features: tuple[str, ...]) -> BaselineTable:
    """The table as arrays, in the order of `features`. Raises PackagingError naming columns."""
    columns = feature_columns(table)
    missing = [name for name in features if name not in columns]
    extra = [name for name in columns if name not in features]
    if missing or extra or len(set(columns)) != len(columns):
        raise PackagingError(
            "the baseline's columns are not the model's features: "
            f"missing {_named(missing)}; not features {_named(extra)}",
            "one column per feature, named as the features, and optionally group and label",
        )
    if not BASELINE_ROWS_MIN <= table.num_rows <= BASELINE_ROWS_MAX:
        raise PackagingError(
            f"the baseline has {table.num_rows} rows; it needs {BASELINE_ROWS_MIN} to "
            f"{BASELINE_ROWS_MAX}"
        )
    return BaselineTable(
        features=np.stack([_numbers(table, name) for name in features], axis=1),
        groups=_texts(table, GROUP_COLUMN),
        labels=_texts(table, LABEL_COLUMN),
    )


def _numbers(table: pa.Table, name: str) -> Floats:
    try:
        column = table.column(name).cast(pa.float64()).to_numpy().astype(np.float32)
    except (pa.ArrowException, ValueError) as error:
        raise PackagingError(f"the baseline's column {name} is not of numbers: {error}") from error
    bad = int((~np.isfinite(column)).sum())
    if bad:
        raise PackagingError(
            f"the baseline's column {name} has {bad} values that are missing or not finite",
            "leave such rows out",
        )
    return np.asarray(column, dtype=np.float32)


def _texts(table: pa.Table, name: str) -> NDArray[np.generic] | None:
    """Values as text; a null is a value of its own."""
    if name not in table.column_names:
        return None
    return np.array([str(value) for value in table.column(name).to_pylist()])


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
