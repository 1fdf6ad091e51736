"""The selector grammar: which devices a rollout is for.

    selector := "all" | term ("," term)*
    term     := key "=" value | key "!=" value | key | "!" key
              | key "in" "(" value ("," value)* ")" | key "not in" "(" value ("," value)* ")"

Terms are joined by "and". `device` is built in and is the device's id. As in Kubernetes, `key !=
value` and `key not in (...)` hold too where the label is absent; `key` alone asks that it is there.

Invariants: pure; `parse(str(selector)) == selector`; an error names the position and the mend.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """`key` among `values`, or not when `negated`; empty `values` ask only whether it is there."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Selector:
    """All of `terms` must hold; none: every device."""

    terms: tuple[Term, ...] = ()

    def matches(self, device_id: str, labels: Mapping[str, str]) -> bool:
        raise NotImplementedError


def parse(text: str) -> Selector:
    """Raises SelectorError with the position (from 1) and what would be right there."""
    raise NotImplementedError
