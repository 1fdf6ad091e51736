"""Retraining policies: the files `<policies_dir>/*.toml`, and those given over the API.

Invariants: what is bad never hides what is good; all is read again when asked, so a change counts
without a restart; a name is a file's or the API's, and the file's wins; a policy of the API runs
and passes along nothing but files below `scripts_dir` (docs/adr/0029).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import ValidationError

from edgeloop_controller.config import RetrainingConfig
from edgeloop_controller.core.retraining import Policy, PolicyTerms
from edgeloop_controller.errors import ConflictError, NotFoundError, PolicyError
from edgeloop_controller.store import events, policies, runs
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError, first_problem

POLICIES_MAX: Final = 100
INPUTS_MAX: Final = 64

Origin = Literal["file", "api"]


@dataclass(frozen=True)
class Policies:
    """What there is now. `found`: ready to run, with files as the controller finds them; `given`:
    those of the API among them, as they were given; `errors`: a file or a policy → what is wrong
    with it."""

    directory: Path | None
    found: Mapping[str, Policy]
    given: Mapping[str, PolicyTerms]
    errors: Mapping[str, str]

    def require(self, name: str) -> Policy:
        """Raises NotFoundError."""
        if name in self.found:
            return self.found[name]
        known = ", ".join(sorted(self.found)) or "none"
        hint = f"there: {known}; `edgeloop retrain policies` shows those that cannot be used too"
        raise NotFoundError(f"no retraining policy {name!r}", hint=hint)

    def terms(self, name: str) -> PolicyTerms:
        """As its file or the API says it."""
        return self.given.get(name, self.found[name])

    def origin(self, name: str) -> Origin:
        return "api" if name in self.given else "file"


class PolicyShelf:
    def __init__(self, database: Database, clock: Clock, config: RetrainingConfig) -> None:
        self._database = database
        self._clock = clock
        self._config = config

    def load(self) -> Policies:
        """Never raises for what a file or a stored policy holds."""
        files = _of_files(self._config.policies_dir)
        with self._database.reading() as session:
            stored = policies.every(session)
        found, errors, given = dict(files.found), dict(files.errors), dict[str, PolicyTerms]()
        for name, document in stored.items():
            try:
                if name in files.found:
                    raise PolicyError("a file of policies_dir has this name, and counts")
                given_terms = PolicyTerms.model_validate(document)
                found[name] = self._placed(name, given_terms)
                given[name] = given_terms
            except (PolicyError, ValidationError) as error:
                said = first_problem(error) if isinstance(error, ValidationError) else str(error)
                errors[f"policy {name}"] = f"policy {name}: {said}"
        return Policies(files.directory, found, given, errors)

    def give(self, name: str, terms: PolicyTerms) -> None:
        """Store it under its name; what was there is replaced. Raises PolicyError or
        ConflictError."""
        if name in _of_files(self._config.policies_dir).found:
            raise ConflictError(
                f"policy {name} is a file of the controller's own, in {self._config.policies_dir}",
                hint="change that file, or remove it first",
            )
        self._placed(name, terms)
        document = terms.model_dump(mode="json")
        with self._database.writing() as session:
            before = policies.terms_of(session, name)
            if before == document:
                return
            if before is None and policies.count(session) >= POLICIES_MAX:
                raise ConflictError(
                    f"{POLICIES_MAX} policies are given already", hint="take one away first"
                )
            now = self._clock.wall()
            policies.save(session, name, document, now)
            events.add(session, now, "policy.changed", name, {"terms": document})

    def take_away(self, name: str) -> None:
        """Raises NotFoundError, or ConflictError while a run of it has not ended."""
        with self._database.writing() as session:
            if policies.terms_of(session, name) is None:
                raise NotFoundError(
                    f"no policy {name!r} was given over the API",
                    hint="a policy that is a file is removed where the file is",
                )
            last = runs.last_of(session, name)
            if last is not None and last.status in runs.UNFINISHED:
                raise ConflictError(
                    f"run {last.id} of policy {name} is {last.status}",
                    hint=f"wait for it: `edgeloop retrain show {last.id}`",
                )
            policies.remove(session, name)
            events.add(session, self._clock.wall(), "policy.removed", name)

    def _placed(self, name: str, terms: PolicyTerms) -> Policy:
        """With its files where they are. Raises PolicyError."""
        directory = self._config.scripts_dir
        if directory is None:
            raise PolicyError(
                "this controller takes no policies over its API: they name scripts that it runs",
                hint="set [retraining] scripts_dir to the directory that holds them",
            )
        if len(terms.inputs) > INPUTS_MAX:
            raise PolicyError(f"inputs: {len(terms.inputs)} files; at most {INPUTS_MAX}")
        placed: dict[str, Any] = {
            "name": name,
            "script": str(_below(directory, terms.script, "script")),
            "inputs": {
                key: str(_below(directory, file, f"inputs.{key}"))
                for key, file in terms.inputs.items()
            },
        }
        return Policy.model_validate(terms.model_dump() | placed)


def _below(directory: Path, given: str, where: str) -> Path:
    """The file of that relative path. Raises PolicyError, also for a link that leads out."""
    path = PurePosixPath(given)
    if path.is_absolute() or ".." in path.parts:
        raise PolicyError(
            f"{where}: {given!r} is not a path below scripts_dir", hint="such as 'watch/train.py'"
        )
    root = directory.resolve()
    try:
        found = (root / path).resolve()
        is_file = found.is_relative_to(root) and found.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        is_file = False
    if not is_file:
        raise PolicyError(
            f"{where}: no file {given!r} in the controller's scripts_dir",
            hint="put it there first; a link that leads out of it does not count",
        )
    return found


def _of_files(directory: Path | None) -> Policies:
    found: dict[str, Policy] = {}
    errors: dict[str, str] = {}
    for path in sorted(directory.glob("*.toml")) if directory is not None else ():
        try:
            policy = load_config(Policy, path, environment={})
        except ConfigError as error:
            errors[str(path)] = str(error)
            continue
        if policy.name in found:
            errors[str(path)] = (
                f"{path}: name: another file has a policy {policy.name!r}; rename one"
            )
        elif not Path(policy.script).is_file():
            errors[str(path)] = (
                f"{path}: script: no file {policy.script} (relative to the controller's "
                "working directory)"
            )
        else:
            found[policy.name] = policy
    if directory is not None and not directory.is_dir():
        errors[str(directory)] = f"no policies directory {directory}: make it or mend policies_dir"
    return Policies(directory, found, {}, errors)
