"""Publishing whatever a model is: a file, an ONNX object, an estimator, a module.

Invariants: nothing is imported to tell what an object is; the caller's words go over what the
object says of itself.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgeloop.client import Client
from edgeloop.documents.fleet import PublishedVersion
from edgeloop.errors import ModelError
from edgeloop.example import Example, read_example
from edgeloop.export.exported import Exported
from edgeloop.export.pytorch import export_module
from edgeloop.export.scikit_learn import export_estimator
from edgeloop.toml_text import toml_text

UNKNOWN_FEATURE: Final = "f{}"


def publish(
    client: Client,
    model: Any,
    name: str,
    version: str,
    example: Any = None,
    *,
    y: Any = None,
    groups: Any = None,
    labels: Sequence[str] | None = None,
    manifest: Mapping[str, Any] | Path | None = None,
    baseline: Path | None = None,
) -> PublishedVersion:
    """As `Fleet.publish`."""
    rows = None if example is None else read_example(example, y, groups)
    exported = export(model, rows)
    draft = exported.draft | _written(manifest)
    if labels is not None:
        draft["labels"] = [str(label) for label in labels]
    if rows is not None:
        draft.setdefault("features", _features(rows, draft))
    files = {"model": exported.content, "manifest": toml_text(draft).encode()}
    if baseline is not None:
        files["baseline"] = Path(baseline).read_bytes()
    elif rows is not None and rows.is_baseline:
        features = draft["features"]
        files["baseline"] = rows.ordered(features).parquet(features)
    return client.upload(PublishedVersion, name, version, files)


def export(model: Any, example: Example | None) -> Exported:
    """A model file of `model`. Raises ModelError for what is none."""
    if isinstance(model, str | Path):
        return Exported(Path(model).read_bytes())
    if isinstance(model, bytes | bytearray):
        return Exported(bytes(model))
    if _is_of(model, "onnx") and hasattr(model, "SerializeToString"):
        return Exported(model.SerializeToString())
    if _is_of(model, "torch.nn"):
        return export_module(model, example)
    if _is_of(model, "sklearn"):
        return export_estimator(model)
    raise ModelError(
        f"{type(model).__module__}.{type(model).__qualname__} is no model that can be published",
        "give an ONNX or TFLite file, an ONNX ModelProto, a fitted scikit-learn classifier or a "
        "torch.nn.Module",
    )


def _is_of(model: Any, package: str) -> bool:
    """Whether a class that the object is of, or inherits from, is the package's own."""
    modules = [kind.__module__ for kind in type(model).__mro__]
    return any(module == package or module.startswith(f"{package}.") for module in modules)


def _written(manifest: Mapping[str, Any] | Path | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    if isinstance(manifest, Mapping):
        return dict(manifest)
    try:
        return tomllib.loads(Path(manifest).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{manifest} is not TOML: {error}", "see docs/spec/schemas") from error


def _features(rows: Example, draft: Mapping[str, Any]) -> list[str]:
    """By the example, by the preprocessing that is declared, or by number."""
    declared = draft.get("preprocessing", {})
    if rows.names is not None:
        return list(rows.names)
    if declared.get("statistics"):
        names = [f"{c}_{s}" for s in declared["statistics"] for c in declared["channels"]]
        if len(names) == rows.width:
            return names
    return [UNKNOWN_FEATURE.format(number) for number in range(rows.width)]
