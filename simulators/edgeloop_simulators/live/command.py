"""`edgeloop-sim fleet`: thousands of live devices, from the command line.

Exit codes: 0 it ran its time, or came to what --until asks; 1 it did not, or something of it ended
by itself; 2 the command line cannot be used; 130 interrupted.
"""

import asyncio
import json
import logging
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.errors import FleetError, SimulatorError
from edgeloop_simulators.live.fleet import DeviceClass, FleetTerms, Share
from edgeloop_simulators.live.proxy import Link
from edgeloop_simulators.live.runners import MISBEHAVIOURS, Misbehaviour, RunnerTerms
from edgeloop_simulators.live.script import parse_act
from edgeloop_simulators.live.session import Figures, Session, SessionTerms

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
MQTT_PORT: Final = 1883
LOCAL_FOR_S: Final = 60.0
PLAIN_EVERY_S: Final = 5.0
KIB: Final = 1024

console = Console()
errors = Console(stderr=True, soft_wrap=True)


def fleet(
    devices: Annotated[int, typer.Option(min=1, help="of the whole fleet")] = 1000,
    join: Annotated[
        str, typer.Option(help="the controller's URL; without it the run starts its own")
    ] = "",
    broker: Annotated[str, typer.Option(help="HOST:PORT; default: the controller's host")] = "",
    share: Annotated[str, typer.Option(help="K/N: the K-th of N processes of one fleet")] = "1/1",
    prefix: Annotated[str, typer.Option(help="device ids begin with it")] = "live-",
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable")] = None,
    device_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="NAME=SHARE[,latency_s=S][,bandwidth=BYTES/S], repeatable"),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="KIND[=AMOUNT]:TARGET@AT[+FOR], as partition:NAME@20+30; repeatable"),
    ] = None,
    misbehave: Annotated[
        list[str] | None,
        typer.Option(help="KIND:NAME@VERSION[:SHARE]: crash, hang, nan or slow; repeatable"),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="NPY, a row an example; default: the baseline's values")
    ] = None,
    examples_per_s: Annotated[float, typer.Option(min=0.01, help="of each device")] = 5.0,
    window_s: Annotated[float, typer.Option(min=1, help="a telemetry window")] = 60.0,
    sample_fraction: Annotated[float, typer.Option(min=0, max=1, help="sent to label")] = 0.0,
    real_agents: Annotated[int, typer.Option(min=0, help="real agent processes beside")] = 0,
    until: Annotated[str, typer.Option(help="end when all run NAME@VERSION")] = "",
    for_s: Annotated[
        float | None, typer.Option("--for", min=1, help="end after so many seconds")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures")] = None,
    verbose: Annotated[bool, typer.Option(help="log to stderr")] = False,
) -> None:
    """Connect thousands of live devices to a real broker and controller, from one process."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)
    try:
        classes = tuple(_class(text) for text in device_class or ())
        if sum(one.share for one in classes) > 1:
            raise FleetError("--class: the shares add up to more than 1")
        terms = SessionTerms(
            fleet=FleetTerms(
                controller_url=join,
                broker=_broker(broker, join),
                devices=devices,
                share=_share(share),
                prefix=prefix,
                classes=classes,
                labels=dict(_pair(text, "--label") for text in label or ()),
                runners=RunnerTerms(
                    examples_per_s=examples_per_s,
                    window_s=window_s,
                    sample_fraction=sample_fraction,
                    misbehaviours=tuple(_misbehaviour(text) for text in misbehave or ()),
                ),
            ),
            acts=tuple(parse_act(text) for text in fault or ()),
            for_s=for_s if for_s or join or until else LOCAL_FOR_S,
            until=until or None,
            real_agents=real_agents,
            examples=None if examples is None else _file(examples),
        )
        session = Session(terms)
    except SimulatorError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(USAGE) from error
    raise typer.Exit(_run(session, json_file))


def _run(session: Session, json_file: Path | None) -> int:
    try:
        figures, reached = asyncio.run(_until_signal(session))
    except (KeyboardInterrupt, asyncio.CancelledError):
        errors.print("interrupted: everything is stopped")
        return INTERRUPTED
    except SimulatorError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        return FAILED
    _show(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    return OK if reached else FAILED


async def _until_signal(session: Session) -> tuple[Figures, bool]:
    """Ctrl-C and SIGTERM cancel the run, which then ends all that it started."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    shown_at = 0.0

    def show(figures: Figures) -> None:
        nonlocal shown_at
        if console.is_terminal or time.monotonic() - shown_at >= PLAIN_EVERY_S:
            shown_at = time.monotonic()
            status.update(_line(figures))
            if not console.is_terminal:
                console.print(_line(figures), markup=False, highlight=False, soft_wrap=True)

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with console.status("starting") as status:
        return await session.run(show, tell)


def _line(figures: Figures) -> str:
    versions = ", ".join(f"{name} on {count}" for name, count in figures.champions.items())
    moving = ", ".join(f"{count} {name}" for name, count in figures.states.items())
    return (
        f"{figures.after_s:6.0f} s  {figures.connected}/{figures.devices} connected, "
        f"{figures.messages_up} up, {figures.messages_down} down; "
        f"{versions or 'no version yet'} ({moving})"
    )


def _show(figures: Figures) -> None:
    table = Table(title="The fleet", title_justify="left", box=None, pad_edge=False)
    table.add_column("", style="dim")
    table.add_column("")
    for name, value in asdict(figures).items():
        if isinstance(value, dict):
            for key, inner in value.items():
                table.add_row(f"{name}: {key}", str(inner))
        else:
            table.add_row(name, "-" if value is None else f"{value:,}")
    per_device = figures.rss_bytes / max(1, figures.devices) / KIB
    table.add_row("KiB a device, all of the process included", f"{per_device:,.0f}")
    console.print()
    console.print(table)


def _broker(text: str, join: str) -> BrokerAddress:
    if not text:
        return BrokerAddress(urlsplit(join).hostname or "127.0.0.1", MQTT_PORT)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise FleetError(f"--broker {text!r}: write HOST:PORT, as in 127.0.0.1:{MQTT_PORT}")
    return BrokerAddress(host, int(port))


def _share(text: str) -> Share:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()):
        raise FleetError(f"--share {text!r}: write K/N, as in 2/4 for the second of four processes")
    return Share(int(part), int(parts))


def _class(text: str) -> DeviceClass:
    first, *rest = text.split(",")
    name, value = _pair(first, "--class")
    settings = dict(_pair(one, "--class") for one in rest)
    unknown = set(settings) - {"latency_s", "bandwidth"}
    if unknown:
        raise FleetError(f"--class {text!r}: {', '.join(sorted(unknown))} is no setting of a link")
    bandwidth = settings.get("bandwidth")
    link = Link(
        latency_s=_number(settings.get("latency_s", "0"), text),
        bandwidth_bytes_per_s=None if bandwidth is None else _number(bandwidth, text),
    )
    return DeviceClass(name, _number(value, text), link)


def _misbehaviour(text: str) -> Misbehaviour:
    kind, _, rest = text.partition(":")
    version, _, share = rest.partition(":")
    known = {one: one for one in MISBEHAVIOURS}
    if kind not in known or not version:
        raise FleetError(
            f"--misbehave {text!r}: write KIND:NAME@VERSION[:SHARE], as in crash:demo@3:0.1; the "
            f"kinds are {', '.join(MISBEHAVIOURS)}"
        )
    return Misbehaviour(known[kind], version, _number(share or "1", text))


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise FleetError(f"{option} {text!r}: write NAME=VALUE")
    return key, value


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise FleetError(f"{where!r}: {text!r} is not a number") from error


def _file(path: Path) -> Path:
    if not path.is_file():
        raise FleetError(f"--examples {path}: there is no such file")
    return path.absolute()
