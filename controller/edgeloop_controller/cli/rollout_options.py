"""What `rollout start` and `rollout plan` are told, and the API's document of it."""

import os
import re
import time
from typing import Annotated, Any, Final

import typer

from edgeloop_controller.cli.connection import split_version
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.output import fail

To = Annotated[
    str, typer.Option(metavar="SELECTOR", help="`all`, `site=lab, !spare, model.watch<2.1` …")
]
Waves = Annotated[str, typer.Option(help="devices or shares, cumulative")]
Soak = Annotated[float | None, typer.Option(metavar="SECONDS", help="how long a wave is watched")]
Deadline = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="how long a wave waits for devices")
]
MaxFailed = Annotated[float | None, typer.Option(help="largest share of devices that may fail")]
MaxDisagreement = Annotated[
    float | None, typer.Option(help="largest share of answers unlike the old version's")
]
MinCompared = Annotated[int | None, typer.Option(help="examples compared before the next wave")]
MaxAccuracyDrop = Annotated[float | None, typer.Option(help="on labelled examples")]
ProbationSeconds = Annotated[float | None, typer.Option(help="shortest probation on a device")]
ProbationExamples = Annotated[int | None, typer.Option(help="fewest examples in a probation")]
At = Annotated[
    str | None, typer.Option(metavar="TIME", help="not before 2026-12-24T22:00, or `+2h`")
]
Pace = Annotated[float | None, typer.Option(metavar="DEVICES", help="offered in any minute")]
MaxUnavailable = Annotated[
    str | None, typer.Option(metavar="N|N%", help="devices of one site under way at once")
]
UnavailableBy = Annotated[str | None, typer.Option(metavar="LABEL", help="that names a site")]
Maintenance = Annotated[
    list[str] | None,
    typer.Option(metavar="HOURS", help="22:00-05:00, by each device's label `timezone`; repeat"),
]
Approve = Annotated[
    str | None, typer.Option(metavar="WAVES", help="that wait for a person: 2,3 or all")
]
Shadow = Annotated[
    int | None, typer.Option(metavar="DEVICES", help="that run it in shadow before the first wave")
]
ShadowExamples = Annotated[
    int | None, typer.Option(help="compared in shadow by each of them before the first wave")
]
ShadowSoak = Annotated[float | None, typer.Option(metavar="SECONDS", help="in shadow, at least")]
ShadowDeadline = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="in shadow, before it waits for a person")
]
ShadowCpu = Annotated[
    float | None, typer.Option(metavar="FRACTION", help="of one core that it may take in shadow")
]
Queue = Annotated[bool, typer.Option("--queue", help="wait for rollouts on the same devices")]
Preempt = Annotated[bool, typer.Option("--preempt", help="end rollouts on the same devices")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="although no device matches yet")]

_LATER: Final = re.compile(r"\+(?P<count>[0-9]+(\.[0-9]+)?)(?P<unit>[smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIMES: Final = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def request(
    version: str,
    to: str,
    waves: str,
    slot: str,
    terms: dict[str, Any],
    probation: dict[str, Any],
    schedule: dict[str, Any],
) -> dict[str, Any]:
    """The body of a start or a plan; what is None was not said."""
    name, number = split_version(version)
    terms = terms | {"probation": _given(probation), "schedule": _given(schedule)}
    return {
        "name": name,
        "version": number,
        "selector": to,
        "waves": [wave.strip() for wave in waves.split(",")],
        "slot": slot,
        "terms": _given(terms),
    }


def schedule(
    at: str | None,
    pace: float | None,
    max_unavailable: str | None,
    unavailable_by: str | None,
    maintenance: list[str] | None,
) -> dict[str, Any]:
    """When and how fast; what is None was not said."""
    return {
        "starts_at": starts_at(at),
        "pace_per_min": pace,
        "max_unavailable": max_unavailable,
        "unavailable_by": unavailable_by,
        "maintenance": maintenance or None,
    }


def shadow(
    devices: int | None,
    examples: int | None,
    soak: float | None,
    deadline: float | None,
    cpu: float | None,
) -> dict[str, Any] | None:
    """The terms of a shadow phase; None: none was asked for."""
    given = _given(
        {
            "min_compared": examples,
            "soak_s": soak,
            "deadline_s": deadline,
            "budget": {"cpu_fraction": cpu} if cpu is not None else None,
        }
    )
    if devices is None and given:
        fail("--shadow-… says how, not whether", "add --shadow DEVICES", ExitCode.USAGE)
    return None if devices is None else {"devices": devices, **given}


def if_busy(queue: bool, preempt: bool) -> str:
    if queue and preempt:
        fail("--queue and --preempt say different things", "choose one", ExitCode.USAGE)
    return "queue" if queue else "preempt" if preempt else "refuse"


def starts_at(text: str | None) -> float | None:
    """Seconds since 1970 of a local time, or of a time from now."""
    if text is None:
        return None
    later = _LATER.fullmatch(text)
    if later:
        return time.time() + float(later["count"]) * _UNIT_S[later["unit"]]
    at = next((found for shape in _TIMES if (found := _local(text, shape)) is not None), None)
    if at is None:
        fail(f"{text!r} is no time", "for example 2026-12-24T22:00 (local), or +2h", ExitCode.USAGE)
    return at


def _local(text: str, shape: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, shape))
    except (ValueError, OverflowError):
        return None


def approve(text: str | None, waves: str) -> list[int] | None:
    if text is None:
        return None
    if text == "all":
        return list(range(1, len(waves.split(",")) + 1))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        fail(f"{text!r} are no waves", "for example 2,3 or all", ExitCode.USAGE)


def actor() -> str:
    """Who says it, as far as this machine knows."""
    import getpass

    return os.environ.get("EDGELOOP_ACTOR") or getpass.getuser()


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
