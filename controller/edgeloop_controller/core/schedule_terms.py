"""When and how fast a rollout may offer, as people write it (docs/adr/0022).

Invariants: what is written wrong is refused with what would be right; hours are kept as minutes of
a week that begins on Monday at midnight, in whatever zone they are read.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from edgeloop_protocol.config import Config
from edgeloop_protocol.limits import NAME_MAX_CHARS

WAVES_MAX: Final = 32
"""More waves than this are refused; each costs at least one soak."""
HOURS_MAX: Final = 32
"""Of maintenance, of one rollout."""
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MIN: Final = 24 * 60
WEEK_MIN: Final = len(DAYS) * DAY_MIN

_HOURS: Final = re.compile(
    r"((?P<days>[A-Za-z,-]+) +)?(?P<from_h>\d\d):(?P<from_m>\d\d)-(?P<to_h>\d\d):(?P<to_m>\d\d)"
)
_SHARE: Final = re.compile(r"(?P<count>[1-9][0-9]{0,8})|(?P<percent>[0-9]{1,3}(\.[0-9]{1,4})?)%")


@dataclass(frozen=True)
class Hours:
    """From `start_min` of the week for `length_min`; over its end into the next one."""

    start_min: int
    length_min: int


def parse_hours(text: str) -> tuple[Hours, ...]:
    """`22:00-05:00`, `Sat,Sun 00:00-24:00`, `Mon-Fri 01:00-04:30`: one for each day on which they
    begin. Raises ValueError that says what would be right."""
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} are no hours: write 22:00-05:00 or Sat,Sun 08:00-18:00")
    start = _minute(match["from_h"], match["from_m"], text)
    end = _minute(match["to_h"], match["to_m"], text)
    if start in (end, DAY_MIN):
        raise ValueError(f"{text!r} are no time at all; the whole day is 00:00-24:00")
    length = (end - start) % DAY_MIN or DAY_MIN
    return tuple(Hours(day * DAY_MIN + start, length) for day in _days(match["days"], text))


def _minute(hour: str, minute: str, text: str) -> int:
    at = int(hour) * 60 + int(minute)
    if int(minute) > 59 or at > DAY_MIN:
        raise ValueError(f"{text!r}: {hour}:{minute} is no time of a day")
    return at


def _days(written: str | None, text: str) -> list[int]:
    if written is None:
        return list(range(len(DAYS)))
    days: set[int] = set()
    for part in written.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{text!r}: {part!r} is no day; they are {', '.join(DAYS)}, Mon-Fri")
        begin = DAYS.index(first)
        span = (DAYS.index(last) - begin) % len(DAYS) if dash else 0
        days |= {(begin + day) % len(DAYS) for day in range(span + 1)}
    return sorted(days)


def _checked_hours(text: str) -> str:
    parse_hours(text)
    return text


def _checked_share(text: str) -> str:
    match = _SHARE.fullmatch(text)
    if match is None or (match["percent"] and not 0 < float(match["percent"]) <= 100):
        raise ValueError(f"{text!r} is neither a count nor a share such as 10%")
    return text


class Schedule(Config):
    """Seconds since 1970 by the controller's clock; waves count from 1."""

    starts_at: float | None = Field(default=None, description="no offer before it")
    pace_per_min: float | None = Field(
        default=None, gt=0, le=1e6, description="devices offered in any minute; below 1: seldomer"
    )
    max_unavailable: Annotated[str, AfterValidator(_checked_share)] | None = Field(
        default=None, description="devices of one site under way at once: 2, or 10%"
    )
    unavailable_by: str = Field(
        default="site", min_length=1, max_length=NAME_MAX_CHARS, description="the label of a site"
    )
    maintenance: tuple[Annotated[str, AfterValidator(_checked_hours)], ...] = Field(
        default=(),
        max_length=HOURS_MAX,
        description="hours in which offers begin, by each device's own label `timezone`, or UTC",
    )
    approve: tuple[Annotated[int, Field(ge=1, le=WAVES_MAX)], ...] = Field(
        default=(), max_length=WAVES_MAX, description="waves that wait for a person"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        object.__setattr__(self, "approve", tuple(sorted(set(self.approve))))
        return self

    @property
    def spreads(self) -> bool:
        """Whether a wave's offers are spread over time."""
        return bool(self.pace_per_min or self.max_unavailable or self.maintenance)

    def hours(self) -> tuple[Hours, ...]:
        return tuple(hours for text in self.maintenance for hours in parse_hours(text))

    def unavailable_of(self, site_devices: int) -> int:
        """How many of a site's devices may be under way at once; at least 1."""
        assert self.max_unavailable is not None
        match = _SHARE.fullmatch(self.max_unavailable)
        assert match is not None
        if match["count"]:
            return int(match["count"])
        return max(1, int(float(match["percent"]) * site_devices / 100 + 1e-6))
