"""Configuration files: TOML, overlaid by EDGELOOP_ variables, validated by pydantic.

Invariants: every error names the key, the file or variable, and the mend; unknown keys are
errors. pydantic-settings does the same job for 16 MB and 250 ms more, which a device pays at
every start (docs/adr/0003).
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from edgeloop_protocol.documents import BaseModel, ConfigDict, ValidationError
from edgeloop_protocol.errors import ConfigError

ENV_PREFIX: Final = "EDGELOOP_"
ENV_NESTING: Final = "__"
NOT_CONFIGURATION: Final = frozenset(
    {
        "EDGELOOP_URL",
        "EDGELOOP_ACTOR",
        "EDGELOOP_TOKEN",
        "EDGELOOP_TOKEN_FILE",
        "EDGELOOP_CA_FILE",
        "EDGELOOP_INSECURE",
        "EDGELOOP_TRUST_PASSPHRASE",
        "EDGELOOP_TRUST_HOME",
    }
)
"""Variables of ours that are no program's configuration: the command line's."""


class Config(BaseModel):
    """Base of every configuration section."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=BaseModel)


def load_config(
    config_type: type[C], path: Path | None, environment: Mapping[str, str] | None = None
) -> C:
    """Read `path` (None: defaults only), overlay the environment, validate.

    `EDGELOOP_BROKER__PORT=1884` sets key `port` of table `[broker]`; a value is read as TOML where
    it parses as such, else as a string; a variable that names no key is an error like any other
    unknown key. Relative paths in the file mean: relative to the working
    directory. Raises ConfigError.
    """
    variables = os.environ if environment is None else environment
    document = _read_toml(path) if path is not None else {}
    origin: dict[str, str] = {}
    for variable in sorted(variables):
        if variable.startswith(ENV_PREFIX) and variable not in NOT_CONFIGURATION:
            keys = variable.removeprefix(ENV_PREFIX).lower().split(ENV_NESTING)
            _overlay(document, keys, variable, variables[variable])
            origin[".".join(keys)] = variable
    try:
        return config_type.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, origin, config_type)) from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises ConfigError with the line and column that tomllib found."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"no configuration file at {path}: give its path with --config"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return parse_toml(text, str(path))


def _overlay(document: dict[str, Any], keys: list[str], variable: str, value: str) -> None:
    table = document
    for key in keys[:-1]:
        below = table.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{variable}: {key} is a single value in the file, not a table")
        table = below
    try:
        table[keys[-1]] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[keys[-1]] = value


def _explain(
    error: ValidationError, path: Path | None, origin: Mapping[str, str], config_type: type[Any]
) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        variables = [name for at, name in origin.items() if at == key or at.startswith(f"{key}.")]
        where = variables[0] if variables else (str(path) if path else "the defaults")
        lines.append(f"{where}: {key or 'document'}: {_mend(problem, config_type)}")
    return "\n".join(lines)


def _mend(problem: Any, config_type: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        known = ", ".join(sorted(_fields_at(config_type, problem["loc"][:-1])))
        return f"unknown key; known here: {known}" if known else "unknown key; remove it"
    if problem["type"] == "missing":
        return "missing; add it"
    given = repr(problem.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "..."
    return f"{problem['msg']} (given {shown})"


def _fields_at(config_type: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    current: Any = config_type
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return set()
        current = field.annotation
    return set(getattr(current, "model_fields", {}))
