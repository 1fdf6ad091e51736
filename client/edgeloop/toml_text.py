"""Write a configuration as TOML: what tomllib reads, for the files that the testbed makes."""

import json
from collections.abc import Mapping
from typing import Any


def toml_text(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Tables, and values of str, bool, int, float or lists of them; None is left out."""
    values = {k: v for k, v in document.items() if not isinstance(v, Mapping) and v is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, table in document.items():
        if isinstance(table, Mapping):
            here = (*path, key)
            lines += ["", f"[{'.'.join(map(_key, here))}]", toml_text(table, here).rstrip()]
    return "\n".join(lines).strip() + "\n"


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, (bool, int, float, str)):
        return json.dumps(value)
    raise TypeError(f"{value!r} has no place in a configuration file")
