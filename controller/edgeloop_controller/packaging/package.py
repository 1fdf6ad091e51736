"""One ONNX file and what a person wrote about it -> the manifest of a version.

Invariants: what the file says wins nothing silently: a draft that contradicts it is an error that
names both sides; the model has run on an example before it is packaged.
"""

import pyarrow as pa

from edgeloop_controller.packaging.runtime import RunModel, run_model
from edgeloop_protocol.manifest import Evaluation, Lineage, Manifest, ManifestDraft


def load_draft(toml_text: str, where: str) -> ManifestDraft:
    """Read model.toml; `where` names it in errors. Raises PackagingError."""
    raise NotImplementedError


def draft_like(manifest: Manifest) -> ManifestDraft:
    """The draft for a retrained successor of `manifest`: all that its file does not say."""
    raise NotImplementedError


def read_baseline(parquet: bytes, where: str) -> pa.Table:
    """Read an uploaded baseline Parquet. Raises PackagingError."""
    raise NotImplementedError


def package(
    model: bytes,
    name: str,
    version: str,
    draft: ManifestDraft,
    baseline_table: pa.Table | None = None,
    *,
    lineage: Lineage | None = None,
    evaluation: Evaluation | None = None,
    run: RunModel = run_model,
) -> Manifest:
    """Check, fill in and freeze. Raises PackagingError.

    `baseline_table`: one column per feature, named as the features; optional `group` (who or what
    the row came from: thresholds are calibrated by leaving groups out; rows in time order within a
    group) and `label`. Without it the version has no baseline and its drift is not watched.
    """
    raise NotImplementedError
