"""Tables of a scenario file that say which devices there are: links, classes, sites."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import Name
from edgeloop_simulators.virtual.scenario.values import Duration, Hours, Share, Size

DEVICES_MAX: Final = 20_000
"""Of one world; more have not been tried."""


class LinkTable(Config):
    """To broker and artifact server. `loss`: of messages, and of downloads cut short."""

    latency: Duration = 0.05
    jitter: Duration = 0.02
    bytes_per_s: PositiveFloat = 1_000_000.0
    loss: Share = 0.0


LINKS: Final[dict[str, LinkTable]] = {
    "ethernet": LinkTable(latency=0.01, jitter=0.002, bytes_per_s=10_000_000.0),
    "wifi": LinkTable(),
    "lte": LinkTable(latency=0.08, jitter=0.05, bytes_per_s=500_000.0, loss=0.005),
    "2g": LinkTable(latency=0.6, jitter=0.4, bytes_per_s=4_000.0, loss=0.03),
    "satellite": LinkTable(latency=0.7, jitter=0.1, bytes_per_s=30_000.0, loss=0.02),
}


def _named_link(given: Any) -> Any:
    if isinstance(given, str):
        if given not in LINKS:
            raise ValueError(f"unknown link; known: {', '.join(LINKS)}, or a table")
        return LINKS[given]
    return given


class ClassTable(Config):
    """A kind of device. `cpu_speed` divides what loading and inference take; outside `connected`
    its radio is off, outside `powered` it is switched off; neither given: always."""

    name: Name
    architecture: str = "x86_64"
    cpu_speed: PositiveFloat = 1.0
    memory: Size = 1 << 30
    disk: Size = 1 << 26
    link: Annotated[
        LinkTable, BeforeValidator(_named_link, json_schema_input_type=str | LinkTable)
    ] = LINKS["wifi"]
    connected: tuple[Hours, ...] = ()
    powered: tuple[Hours, ...] = ()


class SiteTable(Config):
    """Devices `NAME-1`, `NAME-2`, … in one place. Each gets the label `site`, and `labels`."""

    name: Name
    devices: PositiveInt = Field(le=DEVICES_MAX)
    device_class: Name = Field(default="standard", alias="class")
    utc_offset_h: float = Field(default=0.0, ge=-14, le=14)
    labels: dict[Name, str] = Field(default_factory=dict)
