"""What an object becomes, and what it says of itself."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Exported:
    """`content` is a model file; `draft` holds keys of model.toml that the object knows."""

    content: bytes
    draft: dict[str, Any] = field(default_factory=dict)
