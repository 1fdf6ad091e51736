"""Reads lines `module:name JSON` and says each document as the trusting classes have it.

Run as a program, because a process has one kind of classes: those of `edgeloop_protocol.trusting`,
when it is imported before all others, or pydantic's.
"""

import importlib
import json
import sys
from typing import Any


def structure(value: Any) -> Any:
    """All of a document in what `repr` tells apart: classes, fields, tuples, paths."""
    if hasattr(type(value), "model_fields"):
        fields = {name: structure(getattr(value, name)) for name in type(value).model_fields}
        return type(value).__name__, fields
    if isinstance(value, tuple):
        return tuple(map(structure, value))
    if isinstance(value, dict):
        return {key: structure(one) for key, one in value.items()}
    return str(value) if isinstance(value, str) else value


def read(where: str, document: str) -> Any:
    """By a model, or by a function that reads one."""
    module, _, name = where.partition(":")
    found = getattr(importlib.import_module(module), name)
    return getattr(found, "model_validate_json", found)(document.encode())


def main() -> None:
    for line in sys.stdin:
        where, _, document = line.strip().partition(" ")
        try:
            model = read(where, document)
            said = {"structure": repr(structure(model)), "json": model.model_dump_json()}
        except Exception as error:  # told to the test
            said = {"error": type(error).__name__}
        print(json.dumps(said))
    assert "pydantic" not in sys.modules


if __name__ == "__main__":
    import edgeloop_protocol.trusting  # noqa: F401

    main()
