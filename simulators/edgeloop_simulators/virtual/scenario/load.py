"""Read a scenario file of a virtual world; say all that is wrong with it, and on which line.

Invariants: nothing is started on a file with a problem; the problems stand in the file's order,
each as `FILE:LINE: key: what is wrong and how to mend it`.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.toml_lines import Path as KeyPath
from edgeloop_simulators.toml_lines import line_at, lines_of
from edgeloop_simulators.virtual.scenario.file import VirtualScenario
from edgeloop_simulators.virtual.scenario.references import Problem, reference_problems

SHOWN_CHARS_MAX: Final = 60
_DISCRIMINATORS: Final = ("kind", "do")


@dataclass(frozen=True)
class LoadedVirtual:
    """`directory`: where relative paths start from; `text`: as it was read."""

    scenario: VirtualScenario
    directory: Path
    text: str

    def resolve(self, path: Path) -> Path:
        return path if path.is_absolute() else self.directory / path


def shipped_virtual() -> Mapping[str, Path]:
    """Name to file of the virtual scenarios that come with the package."""
    root = Path(str(files("edgeloop_simulators") / "scenarios" / "virtual"))
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


def find_virtual(name_or_path: str) -> Path | None:
    """The file of a virtual world: one that says `world`, or the shipped one of that name; None
    for anything else."""
    path = Path(name_or_path)
    if not path.is_file():
        return shipped_virtual().get(name_or_path)
    try:
        says = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return path if "world" in says else None


def load_virtual(path: Path) -> LoadedVirtual:
    """Raises ScenarioError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot read {path}: {error}") from error
    return parse_virtual(text, str(path), path.resolve().parent)


def parse_virtual(text: str, name: str, directory: Path) -> LoadedVirtual:
    """`name` stands in errors, `directory` is where relative paths start from."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise ScenarioError(f"{name}:{line}: not TOML: {error}") from error
    scenario, problems = check(document, directory)
    if scenario is None or problems:
        lines = lines_of(text)
        placed = sorted((line_at(lines, one.path), _shown(one.path), one.text) for one in problems)
        raise ScenarioError(
            "\n".join(f"{name}:{line}: {key}: {says}" for line, key, says in placed)
        )
    return LoadedVirtual(scenario, directory, text)


def scenario_of(
    document: Mapping[str, Any],
    directory: Path,
    scenario_type: type[VirtualScenario] = VirtualScenario,
) -> LoadedVirtual:
    """The same from a document that is in no file. Raises ScenarioError."""
    scenario, problems = check(document, directory, scenario_type)
    if scenario is None or problems:
        raise ScenarioError("\n".join(f"{_shown(one.path)}: {one.text}" for one in problems))
    return LoadedVirtual(scenario, directory, "")


def check(
    document: Mapping[str, Any],
    directory: Path,
    scenario_type: type[VirtualScenario] = VirtualScenario,
) -> tuple[VirtualScenario | None, Sequence[Problem]]:
    """The scenario, unless the models refuse it, and all problems."""
    problems = list(dict.fromkeys(reference_problems(document)))
    try:
        scenario = scenario_type.model_validate(document)
    except ValidationError as error:
        wrong = [
            _problem(document, one)
            for one in error.errors(include_url=False)
            if not (one["type"] == "too_short" and one["input"])  # its elements are told of
        ]
        told = {one.path for one in wrong}
        return None, [*wrong, *(one for one in problems if one.path not in told)]
    return scenario, [*problems, *_missing_files(scenario, directory)]


def _missing_files(scenario: VirtualScenario, directory: Path) -> Iterator[Problem]:
    for number, model in enumerate(scenario.models):
        for key in ("file", "manifest", "baseline", "script"):
            path = getattr(model, key, None)
            if path is not None and not (directory / path).is_file():
                yield Problem(("models", number, key), f"no file {directory / path}")
    for key in ("file", "after_file"):
        path = getattr(scenario.data, key, None)
        if path is not None and not (directory / path).is_file():
            yield Problem(("data", key), f"no file {directory / path}")


def _problem(document: Mapping[str, Any], error: Any) -> Problem:
    path = _path(document, error["loc"])
    if error["type"] == "extra_forbidden":
        return Problem(path, _unknown(str(path[-1]), _fields_at(error["loc"][:-1])))
    if error["type"] == "missing":
        return Problem(path, "missing; add it")
    if error["type"] == "union_tag_not_found":
        key = error["ctx"]["discriminator"].strip("'")
        return Problem((*path, key), "missing; add it")
    text = error["msg"].removeprefix("Value error, ")
    given = repr(error.get("input"))
    if len(given) > SHOWN_CHARS_MAX:
        given = f"{given[: SHOWN_CHARS_MAX - 3]}..."
    return Problem(path, f"{text} (given {given})")


def _path(document: Mapping[str, Any], location: Sequence[int | str]) -> KeyPath:
    """Where in the document: pydantic puts the tag of a chosen table between its keys."""
    here: Any = document
    path: KeyPath = ()
    for part in location:
        if isinstance(here, dict) and part in [here.get(key) for key in _DISCRIMINATORS]:
            continue
        path = (*path, part)
        here = _within(here, part)
    return path


def _within(here: Any, part: int | str) -> Any:
    if isinstance(here, dict):
        return here.get(part)
    is_there = isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here)
    return here[part] if is_there else None


def _unknown(key: str, fields: Sequence[str]) -> str:
    near = get_close_matches(key, fields, n=1)
    mend = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key; {mend}Known here: {', '.join(fields)}" if fields else "unknown key"


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """The keys of the table at a location of pydantic's, by the JSON Schema."""
    schema = VirtualScenario.model_json_schema()
    here: Any = schema
    for part in location:
        here = _below(_resolved(schema, here), part)
    return sorted(_resolved(schema, here).get("properties", ()))


def _below(here: Mapping[str, Any], part: int | str) -> Any:
    if isinstance(part, int):
        return here.get("items", {})
    mapping = here.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    return here.get("properties", {}).get(part) or here.get("additionalProperties") or {}


def _resolved(schema: Mapping[str, Any], here: Any) -> Mapping[str, Any]:
    while isinstance(here, dict):
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in here:
            here = next((one for one in here["anyOf"] if "$ref" in one), {"of": "no table"})
        elif "allOf" in here:
            here = here["allOf"][0]
        else:
            return here
    return {}


def _shown(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "document"
