"""A version of MLflow's registry becomes a version here: found, fetched, checked, published.

Invariants: nothing is fetched but files that `core.mlflow_files` chose, each within a limit, all
within one deadline; nothing is loaded in this process; the same registered version published again
is the same version.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_controller.config import MANIFEST_TOML_MAX_BYTES, LimitsConfig
from edgeloop_controller.core.mlflow_files import (
    HOW_TO_LOG,
    WITHOUT_MLMODEL,
    ModelFiles,
    choose_files,
)
from edgeloop_controller.core.mlflow_versions import (
    DIGEST_TAG,
    ModelUri,
    RegisteredVersion,
    published_name,
)
from edgeloop_controller.errors import PackagingError
from edgeloop_controller.mlflow_registry import MlflowRegistry
from edgeloop_controller.packaging.external_weights import joined, weight_files
from edgeloop_controller.services.publishing import Published, Publishing

MLMODEL_FILE: Final = "MLmodel"
MLMODEL_MAX_BYTES: Final = 256 * 1024

Read = Callable[[str, int], bytes | None]
"""A file of the version by its path, up to so many bytes; None: there is none."""


@dataclass(frozen=True)
class Fetched:
    """A version's files, read whole."""

    model: bytes
    draft_toml: str | None
    baseline_parquet: bytes | None


class MlflowPublishing:
    def __init__(
        self, registry: MlflowRegistry, publishing: Publishing, limits: LimitsConfig
    ) -> None:
        self._registry = registry
        self._publishing = publishing
        self._limits = limits

    def publish(self, uri: ModelUri, name: str | None = None) -> Published:
        """Raises NotFoundError, MlflowError, RefusedInputError or VersionConflictError."""
        deadline = self._registry.deadline()
        return self.publish_found(self._registry.look_up(uri, deadline), uri, name, deadline)

    def publish_found(
        self, found: RegisteredVersion, uri: ModelUri, name: str | None, deadline: float
    ) -> Published:
        """As `publish`, of a version that `uri` was found to name."""
        model_name, version = published_name(found, name)
        where = f"models:/{found.model}/{found.version}"
        try:
            fetched = self._fetch(found, deadline)
            origin = {
                "tracking_uri": self._registry.uri,
                "model": found.model,
                "version": found.version,
                "run_id": found.run_id,
                "alias": uri.alias,
            }
            return self._publishing.publish_files(
                fetched.model,
                model_name,
                version,
                fetched.draft_toml,
                fetched.baseline_parquet,
                {"mlflow": origin},
            )
        except PackagingError as error:
            raise PackagingError(f"{where} cannot be published: {error}", error.hint) from error

    def _fetch(self, found: RegisteredVersion, deadline: float) -> Fetched:
        def read(path: str, max_bytes: int) -> bytes | None:
            return self._registry.file(found, path, max_bytes, deadline)

        mlmodel = read(MLMODEL_FILE, MLMODEL_MAX_BYTES)
        candidates = WITHOUT_MLMODEL if mlmodel is None else (choose_files(_parsed(mlmodel)),)
        for files in candidates:
            model = read(files.model, self._limits.upload_max_bytes)
            if model is not None:
                model = self._whole(model, files.model, read)
                _check_digest(model, found)
                return self._with_companions(model, files, read)
        missing = " and no ".join(files.model for files in candidates)
        raise PackagingError(f"its directory has no {missing}", HOW_TO_LOG)

    def _whole(self, model: bytes, path: str, read: Read) -> bytes:
        """With the weights inside that mlflow.onnx.log_model by default keeps beside."""
        if not path.endswith(".onnx"):
            return model
        directory = path[: path.rfind("/") + 1]
        limit = self._limits.upload_max_bytes
        files: dict[str, bytes] = {}
        for name in weight_files(model):
            left = limit - len(model) - sum(map(len, files.values()))
            content = read(f"{directory}{name}", max(0, left))
            if content is None:
                raise PackagingError(f"its weights are in {name}, which is not there", HOW_TO_LOG)
            files[name] = content
        return joined(model, files, limit) if files else model

    def _with_companions(self, model: bytes, files: ModelFiles, read: Read) -> Fetched:
        draft = read(files.draft, MANIFEST_TOML_MAX_BYTES) if files.draft else None
        limit = self._limits.baseline_max_bytes
        baseline = read(files.baseline, limit) if files.baseline else None
        try:
            return Fetched(model, draft.decode() if draft is not None else None, baseline)
        except UnicodeDecodeError as error:
            raise PackagingError(f"its {files.draft} is not UTF-8 text: {error}") from error


def _parsed(mlmodel: bytes) -> Any:
    """By PyYAML's safe loader in Python: deep nesting would end the process in the C one."""
    import yaml  # a controller without MLflow does not pay for it

    try:
        return yaml.load(mlmodel, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PackagingError("its MLmodel file cannot be read", HOW_TO_LOG) from error


def _check_digest(model: bytes, found: RegisteredVersion) -> None:
    said = found.tags.get(DIGEST_TAG)
    digest = hashlib.sha256(model).hexdigest()
    if said is not None and said.lower() != digest:
        raise PackagingError(
            f"its file has the SHA-256 {digest}; the tag {DIGEST_TAG} says {said[:64]}",
            "somebody changed the file or the tag: log and register it again",
        )
