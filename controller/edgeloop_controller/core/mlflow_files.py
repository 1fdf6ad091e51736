"""Which files of an MLflow model are published, from what its `MLmodel` says. Pure.

Invariants: a path is relative and stays in the model's directory; nothing that would have to be
unpickled is ever named; what cannot be published is refused with the call that logs it otherwise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_controller.errors import PackagingError

MODEL_SUFFIXES: Final = (".onnx", ".tflite")
DRAFT_FILE: Final = "model.toml"
BASELINE_FILE: Final = "baseline.parquet"
PATH_MAX_CHARS: Final = 500
HOW_TO_LOG: Final = (
    "Edgeloop unpickles nothing: convert it (skl2onnx, torch.onnx.export, tf2onnx) and log it with "
    "mlflow.onnx.log_model, or a .tflite file as an artifact"
)


@dataclass(frozen=True)
class ModelFiles:
    """Paths in the model's directory; None: there is none."""

    model: str
    draft: str | None = None
    baseline: str | None = None


WITHOUT_MLMODEL: Final = tuple(
    ModelFiles(f"model{suffix}", DRAFT_FILE, BASELINE_FILE) for suffix in MODEL_SUFFIXES
)
"""What a directory that no flavour wrote may hold; each file but the model may be missing."""


def choose_files(mlmodel: Any) -> ModelFiles:
    """`mlmodel`: the file `MLmodel`, parsed. Raises PackagingError."""
    flavours = mlmodel.get("flavors") if isinstance(mlmodel, Mapping) else None
    if not isinstance(flavours, Mapping) or not flavours:
        raise PackagingError("its MLmodel file names no flavour", HOW_TO_LOG)
    onnx = flavours.get("onnx")
    if isinstance(onnx, Mapping):
        beside = list(_paths(onnx.get("extra_files")))
        return ModelFiles(_safe(onnx.get("data")), *_companions(beside))
    function = flavours.get("python_function")
    artifacts = function.get("artifacts") if isinstance(function, Mapping) else None
    beside = list(_paths(list(artifacts.values()) if isinstance(artifacts, Mapping) else ()))
    models = [path for path in beside if path.endswith(MODEL_SUFFIXES)]
    if len(models) == 1:
        return ModelFiles(models[0], *_companions(beside))
    names = ", ".join(sorted(str(name)[:40] for name in flavours if name != "python_function"))
    if models:
        raise PackagingError(f"it has {len(models)} models: {', '.join(models)}", "log one alone")
    raise PackagingError(f"it is of the flavour {names or 'python_function'}", HOW_TO_LOG)


def _paths(entries: Any) -> Iterator[str]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping):
            yield _safe(entry.get("path"))


def _companions(paths: list[str]) -> tuple[str | None, str | None]:
    by_name = {path.rpartition("/")[2]: path for path in paths}
    return by_name.get(DRAFT_FILE), by_name.get(BASELINE_FILE)


def _safe(path: Any) -> str:
    """Raises PackagingError for what is no plain path below the model's directory."""
    is_text = isinstance(path, str) and 0 < len(path) <= PATH_MAX_CHARS and path.isprintable()
    if is_text and not path.startswith("/") and "\\" not in path and ".." not in path.split("/"):
        return str(path)
    raise PackagingError(
        f"its MLmodel file names {ascii(path)[:80]}, which is no path in its directory",
        "log it again with mlflow.onnx.log_model",
    )
