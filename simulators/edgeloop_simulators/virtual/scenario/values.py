"""What people write in a scenario file for times, sizes, shares and versions, and what it means.

Invariant: each reads a number in the unit that its docstring names, or a text that carries its
unit; the JSON Schema of each says the same.
"""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from edgeloop_simulators.virtual.spec.world import DailyWindow

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_UNITS_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_DURATION: Final = rf"(?:{_NUMBER} ?(?:ms|s|min|h|d))(?: {_NUMBER} ?(?:ms|s|min|h|d))*"
_SIZE: Final = rf"{_NUMBER} ?(?:{'|'.join(_UNITS_BYTES)})"
_SHARE: Final = rf"{_NUMBER} ?%"
_HOURS: Final = r"(?:[01][0-9]|2[0-4]):[0-5][0-9]-(?:[01][0-9]|2[0-4]):[0-5][0-9]"


def _duration(given: Any) -> Any:
    if not isinstance(given, str):
        return _number(given, 'seconds, or a text such as "90 s", "2 h" or "1 d 6 h"')
    if not re.fullmatch(_DURATION, given):
        raise ValueError('write seconds, or a text such as "90 s", "2 h" or "1 d 6 h"')
    parts = re.findall(rf"({_NUMBER}) ?(ms|min|s|h|d)", given)
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def seconds(given: float | str) -> float:
    """What a Duration means. Raises ValueError."""
    return float(_duration(given))


def _size(given: Any) -> Any:
    if not isinstance(given, str):
        return _number(given, 'bytes, or a text such as "60 kB" or "256 MiB"')
    match = re.fullmatch(rf"({_NUMBER}) ?({'|'.join(_UNITS_BYTES)})", given)
    if match is None:
        raise ValueError('write bytes, or a text such as "60 kB" or "256 MiB"')
    return int(float(match[1]) * _UNITS_BYTES[match[2]])


def _share(given: Any) -> Any:
    mend = 'write a share from 0 to 1, or a text from "0%" to "100%"'
    if isinstance(given, str):
        if not re.fullmatch(_SHARE, given):
            raise ValueError(mend)
        given = float(given.rstrip("% ")) / 100
    number = _number(given, 'a share from 0 to 1, or a text such as "5%"')
    if not 0 <= number <= 1:
        raise ValueError(mend)
    return number


def _hours(given: Any) -> Any:
    if not isinstance(given, str) or not re.fullmatch(_HOURS, given):
        raise ValueError('write hours of the local day, such as "22:30-04:00"')
    from_h, to_h = (int(part[:2]) + int(part[3:]) / 60 for part in given.split("-"))
    return DailyWindow(from_h, to_h)


def _number(given: Any, mend: str) -> float | int:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ValueError(f"write {mend}")
    return given


def _schema(kind: str, pattern: str, says: str, **limits: float) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": kind, "minimum": 0, **limits},
                {"type": "string", "pattern": f"^{pattern}$"},
            ],
            "description": says,
        }
    )


Duration = Annotated[
    float,
    Field(ge=0),
    BeforeValidator(_duration),
    _schema("number", _DURATION, 'seconds, or a text such as "90 s", "2 h" or "1 d 6 h"'),
]
"""Seconds. As a time of day or of the story: since the world's beginning."""

Size = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(_size),
    _schema("integer", _SIZE, 'bytes, or a text such as "60 kB" or "256 MiB"'),
]
"""Bytes."""

Share = Annotated[
    float,
    BeforeValidator(_share),
    _schema("number", _SHARE, 'a share from 0 to 1, or a text such as "5%"', maximum=1),
]
"""0 to 1."""

Hours = Annotated[
    Any,
    BeforeValidator(_hours),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_HOURS}$",
            "description": 'hours of the local day, such as "22:30-04:00"',
        }
    ),
]
"""A DailyWindow."""

VersionName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*@[A-Za-z0-9][A-Za-z0-9_.+-]*$")
]
"""`name@version`."""

EVERY_DEVICE: Final = "*"
"""As a target."""
