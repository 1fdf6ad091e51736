"""What happens to a live run while it runs, as text and as values: links and kills, at their times.

    KIND[=AMOUNT]:TARGET@AT[+FOR]      partition:mobile@20+30   latency=0.5:mobile@10+60
                                       reset:mobile@40          kill:broker@60+5

Times are seconds since all devices began to connect. A link's fault ends after FOR seconds, or
never; a killed program is started again after FOR seconds, or at once.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, cast, get_args

from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.live.fleet import DeviceClass, Route
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.proxy import Link

Kind = Literal["latency", "bandwidth", "stall", "partition", "reset", "kill"]
KINDS: Final = get_args(Kind)
WITH_AMOUNT: Final = ("latency", "bandwidth")
PROGRAMS: Final = ("broker", "controller")
_ACT: Final = re.compile(
    r"(?P<kind>[a-z]+)(=(?P<amount>[0-9.]+))?:(?P<target>[\w.-]+)@(?P<at>[0-9.]+)(\+(?P<for>[0-9.]+))?"
)


@dataclass(frozen=True, slots=True)
class Act:
    """`amount`: seconds of latency one way, or bytes a second of each connection."""

    kind: Kind
    target: str
    at_s: float
    duration_s: float | None = None
    amount: float = 0.0

    def on(self, link: Link) -> Link:
        """What a link becomes by it."""
        changed = {
            "latency": replace(link, latency_s=self.amount),
            "bandwidth": replace(link, bandwidth_bytes_per_s=self.amount or None),
            "stall": replace(link, stalled=True),
            "partition": replace(link, partitioned=True),
        }
        return changed.get(self.kind, link)


def parse_act(text: str) -> Act:
    """Raises FleetError."""
    found = _ACT.fullmatch(text)
    if found is None or found["kind"] not in KINDS:
        raise FleetError(
            f"fault {text!r}: write KIND[=AMOUNT]:TARGET@AT[+FOR], as in partition:mobile@20+30; "
            f"the kinds are {', '.join(KINDS)}"
        )
    kind = cast(Kind, found["kind"])
    if (kind in WITH_AMOUNT) != (found["amount"] is not None):
        raise FleetError(
            f"fault {text!r}: "
            + (
                f"{kind} needs an amount, as in {kind}=0.5:…"
                if kind in WITH_AMOUNT
                else f"{kind} takes no amount"
            )
        )
    try:
        return Act(
            kind,
            found["target"],
            float(found["at"]),
            None if found["for"] is None else float(found["for"]),
            float(found["amount"] or 0),
        )
    except ValueError as error:
        raise FleetError(f"fault {text!r}: {error}") from error


def check_acts(acts: tuple[Act, ...], classes: tuple[DeviceClass, ...], is_local: bool) -> None:
    """Raises FleetError for a target that the run does not have."""
    names = [one.name for one in classes]
    for act in acts:
        if act.kind != "kill" and act.target not in names:
            raise FleetError(
                f"{act.kind}:{act.target}: there is no such device class; give it a share of the "
                f"devices first, as in --class {act.target}=0.2"
            )
        if act.kind == "kill" and act.target not in PROGRAMS:
            raise FleetError(f"kill:{act.target}: only {' and '.join(PROGRAMS)} can be killed")
        if act.kind == "kill" and not is_local:
            raise FleetError(
                "kill: a run that joins a controller does not own it: leave --join out, and the "
                "run starts a broker and a controller of its own"
            )


async def play(
    acts: tuple[Act, ...],
    routes: Mapping[str, Route],
    classes: tuple[DeviceClass, ...],
    middle: Middle | None,
) -> None:
    """Return when the last act has ended."""
    links = {one.name: one.link for one in classes}
    async with asyncio.TaskGroup() as group:
        for act in acts:
            if act.kind == "kill":
                assert middle is not None  # check_acts
                group.create_task(_kill(act, middle))
            else:
                group.create_task(_change(act, routes[act.target], links[act.target]))


async def _change(act: Act, route: Route, ordinary: Link) -> None:
    await asyncio.sleep(act.at_s)
    if act.kind == "reset":
        route.reset()
        return
    route.become(act.on(ordinary))
    if act.duration_s is not None:
        await asyncio.sleep(act.duration_s)
        route.become(ordinary)


async def _kill(act: Act, middle: Middle) -> None:
    await asyncio.sleep(act.at_s)
    killed = middle.broker if act.target == "broker" else middle.controller
    killed.kill()
    await asyncio.sleep(act.duration_s or 0.0)
    await (middle.start_broker() if act.target == "broker" else middle.start_controller())
