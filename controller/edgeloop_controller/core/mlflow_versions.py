"""What MLflow's registry calls a version, and what Edgeloop calls it. Pure.

Invariants: a URI names a version or an alias, never what moves by itself (a stage, `latest`); the
same registered version always has the same name here, whatever alias it was asked by.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgeloop_controller.errors import RefusedInputError
from edgeloop_protocol.limits import NAME_MAX_CHARS
from edgeloop_protocol.messages import NAME_PATTERN

VERSION_TAG: Final = "edgeloop.version"
DIGEST_TAG: Final = "edgeloop.sha256"
READY: Final = "READY"
MODEL_PATTERN: Final = r"^[^/:]+$"
ALIAS_PATTERN: Final = r"^[\w-]+$"
URI_HINT: Final = "write models:/NAME@ALIAS or models:/NAME/NUMBER"


@dataclass(frozen=True)
class ModelUri:
    """`models:/watch@champion` or `models:/watch/3`: either `alias` or `version` is set."""

    model: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        suffix = f"@{self.alias}" if self.alias is not None else f"/{self.version}"
        return f"models:/{self.model}{suffix}"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as the registry describes it."""

    model: str
    version: str
    run_id: str = ""
    status: str = READY
    tags: Mapping[str, str] = field(default_factory=dict)


def parse_model_uri(text: str) -> ModelUri:
    """Raises RefusedInputError."""
    path = text.removeprefix("models:/")
    if path == text or not path.strip("/"):
        raise RefusedInputError(f"{text!r} is no model of MLflow's registry", URI_HINT)
    model, slash, suffix = path.partition("/")
    if slash:
        if not suffix.isascii() or not suffix.isdecimal():
            what = "moves by itself" if suffix else "is empty"
            raise RefusedInputError(f"{text!r} names no version: {suffix!r} {what}", URI_HINT)
        return ModelUri(_model(model, text), version=suffix)
    model, at, alias = path.rpartition("@")
    if not at:
        raise RefusedInputError(f"{text!r} names neither a version nor an alias", URI_HINT)
    if not re.fullmatch(ALIAS_PATTERN, alias):
        raise RefusedInputError(f"{alias!r} of {text!r} cannot be an alias of MLflow", URI_HINT)
    return ModelUri(_model(model, text), alias=alias)


def _model(model: str, text: str) -> str:
    if not re.fullmatch(MODEL_PATTERN, model) or not model.isprintable():
        raise RefusedInputError(f"{text!r} names no model: {model!r}", URI_HINT)
    return model


def registered_version(document: Any) -> RegisteredVersion:
    """Of MLflow's `model_version` document. Raises ValueError for another shape."""
    try:
        found = document["model_version"]
        return RegisteredVersion(
            model=_text(found["name"]),
            version=_text(found["version"]),
            run_id=_text(found.get("run_id") or ""),
            status=_text(found.get("status") or READY),
            tags={_text(tag["key"]): _text(tag.get("value", "")) for tag in found.get("tags", ())},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a model_version document") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def published_name(found: RegisteredVersion, name: str | None) -> tuple[str, str]:
    """Model and version as Edgeloop has them: `name`, else the model's own; the tag VERSION_TAG,
    else MLflow's number. Raises RefusedInputError."""
    model = found.model if name is None else name
    version = found.tags.get(VERSION_TAG, found.version)
    for what, text, hint in (
        ("model", model, "give it another one: --name NAME, or `name` of the follow"),
        ("version", version, f"set the tag {VERSION_TAG} of MLflow's version to one that can"),
    ):
        if not re.fullmatch(NAME_PATTERN, text) or len(text) > NAME_MAX_CHARS:
            raise RefusedInputError(
                f"{what} {text!r} of MLflow cannot be a name here: 1 to {NAME_MAX_CHARS} of "
                "letters, digits, '_', '.', '+' and '-', the first a letter or a digit",
                hint,
            )
    return model, version
