"""What our documents' classes are made of: pydantic, or in a runner what does not check.

Invariants: every class that a runner reads or writes is made of the names here, never of pydantic's
own; which of the two it is, is decided once a process, before the first such class is defined.
"""

import sys
from typing import TYPE_CHECKING

TRUSTING = "edgeloop_protocol.trusting"
"""Who imports this module first chooses it."""

if TYPE_CHECKING or TRUSTING not in sys.modules:
    from pydantic import (
        AfterValidator,
        BaseModel,
        ConfigDict,
        Discriminator,
        Field,
        SerializerFunctionWrapHandler,
        Tag,
        TypeAdapter,
        ValidationError,
        field_validator,
        model_serializer,
        model_validator,
    )
else:
    from edgeloop_protocol.trusting import (
        AfterValidator,
        BaseModel,
        ConfigDict,
        Discriminator,
        Field,
        SerializerFunctionWrapHandler,
        Tag,
        TypeAdapter,
        ValidationError,
        field_validator,
        model_serializer,
        model_validator,
    )

__all__ = [
    "AfterValidator",
    "BaseModel",
    "ConfigDict",
    "Discriminator",
    "Field",
    "SerializerFunctionWrapHandler",
    "Tag",
    "TypeAdapter",
    "ValidationError",
    "field_validator",
    "model_serializer",
    "model_validator",
]
