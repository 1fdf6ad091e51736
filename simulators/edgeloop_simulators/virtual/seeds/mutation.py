"""A bug planted in real code while a world is played, and the hunt for it.

A mutant is a few words of a function's source put in place of others: the function's code object is
exchanged, so that whoever imported the function by name has the bug too, and no copy of production
code stands anywhere to grow old. Words that are no longer there are an error, not a survivor.

Invariants: the bug is in this process alone, and only within `plant`; a seed that fails without the
bug does not count as having found it.
"""

import __future__

import importlib
import inspect
import textwrap
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from types import CodeType, FunctionType
from typing import Any, Final

from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.seeds.case import case_of
from edgeloop_simulators.virtual.seeds.case_play import play
from edgeloop_simulators.virtual.seeds.explore import workers

FLAGS: Final = __future__.annotations.compiler_flag
"""Annotations need not be evaluated once more."""


@dataclass(frozen=True)
class Edit:
    """`function`: `package.module:Class.method`; `old` stands in its source exactly once."""

    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """`seed` is one that is known to find it."""

    says: str
    edits: tuple[Edit, ...]
    seed: int


@dataclass(frozen=True)
class Hunted:
    """`law` is empty when the mutant survived."""

    mutant: str
    law: str
    seed: int
    tried: int
    wall_s: float


@contextmanager
def plant(mutant: Mutant) -> Iterator[None]:
    """Raises CaseError when the code is no longer what the mutant changes."""
    with ExitStack() as stack:
        for edit in mutant.edits:
            stack.enter_context(_edited(edit))
        yield


@contextmanager
def _edited(edit: Edit) -> Iterator[None]:
    function = _function(edit.function)
    before = function.__code__
    function.__code__ = _mutated(function, edit)
    try:
        yield
    finally:
        function.__code__ = before


def _function(name: str) -> FunctionType:
    module, _, path = name.partition(":")
    found: Any = reduce(inspect.getattr_static, path.split("."), importlib.import_module(module))
    return _plain(found, name)


def _plain(found: Any, name: str) -> FunctionType:
    """The function itself, under property and decorators."""
    getter: Any = found.fget if isinstance(found, property) else found
    inner = inspect.unwrap(getter)
    if not isinstance(inner, FunctionType):
        raise CaseError(f"{name} is no function that can be mutated")
    return inner


def _mutated(function: FunctionType, edit: Edit) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(edit.old) != 1:
        raise CaseError(
            f"{edit.old!r} stands {source.count(edit.old)} times in {edit.function}: the code has "
            "changed, and the mutant must follow it"
        )
    scope = dict(function.__globals__)
    changed = source.replace(edit.old, edit.new)
    code = compile(changed, f"<{edit.function}, mutated>", "exec", FLAGS, dont_inherit=True)
    exec(code, scope)  # noqa: S102 - our own source, a few words of it changed
    return _plain(scope[function.__name__], edit.function).__code__


def hunt_all(mutants: Mapping[str, Mutant], seeds: int, jobs: int) -> Iterator[Hunted]:
    """Each as soon as it is known."""
    with workers(jobs) as pool:
        futures = [pool.submit(hunt, name, mutant, seeds) for name, mutant in mutants.items()]
        for future in as_completed(futures):
            yield future.result()


def hunt(name: str, mutant: Mutant, seeds: int) -> Hunted:
    """From seed 0 on, up to `seeds` of them."""
    began = time.monotonic()
    for seed in range(seeds):
        law = law_found(mutant, seed)
        if law:
            return Hunted(name, law, seed, seed + 1, time.monotonic() - began)
    return Hunted(name, "", 0, seeds, time.monotonic() - began)


def law_found(mutant: Mutant, seed: int) -> str:
    """The law that this seed sees broken because of the mutant; empty: none."""
    case = case_of(seed)
    with plant(mutant):
        law = play(case).law
    return law if law and not play(case).law else ""
