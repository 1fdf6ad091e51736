"""What a virtual world shows of itself: one value for everything that happens in it.

Invariant: `data` holds only text, numbers, booleans, None and lists and mappings of these, in an
order that the seed alone decides, so that the trace's hash is the same everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """`part` is a device id, `broker`, `controller`, `network`, `artifacts` or `world`; `what` a
    dotted name such as `slot.state`, `runner.started`, `message.dropped`, `fault.begins`."""

    at_s: float
    part: str
    what: str
    data: Mapping[str, Any]


Observe = Callable[[Seen], None]
