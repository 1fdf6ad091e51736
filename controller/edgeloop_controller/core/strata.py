"""Strata of a fleet: the devices of one architecture at one site.

Invariants: what has no site label is a site of its own, named by the empty text; a stratum depends
on the device alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from edgeloop_protocol.messages import Inventory

SITE_LABEL: Final = "site"
"""The label that names a site, unless the terms name another."""

View = Literal["fleet", "architecture", "site"]


class Stratum(NamedTuple):
    architecture: str
    site: str


class Placed(Protocol):
    """What a device must tell of itself to be placed."""

    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def inventory(self) -> Inventory: ...


@dataclass(frozen=True)
class Group:
    """Devices that a gate looks at together; `place` is its place among those of its view."""

    view: View
    key: str
    place: int

    def __str__(self) -> str:
        if self.view == "fleet":
            return ""
        return f"{self.view} {self.key}" if self.key else f"no {self.view}"


WHOLE: Final = Group("fleet", "", 1)


def stratum_of(device: Placed, site_label: str) -> Stratum:
    return Stratum(device.inventory.architecture, device.labels.get(site_label, ""))


def groups_of(strata: Iterable[Stratum]) -> list[Group]:
    """The whole, then each architecture and each site in the order in which they first appear.

    A view in which all are alike says nothing new and is left out.
    """
    found: list[Group] = [WHOLE]
    seen = list(dict.fromkeys(strata))
    architectures = dict.fromkeys(one.architecture for one in seen)
    sites = dict.fromkeys(one.site for one in seen)
    if len(architectures) > 1:
        found += [Group("architecture", key, k) for k, key in enumerate(architectures, start=1)]
    if len(sites) > 1:
        found += [Group("site", key, k) for k, key in enumerate(sites, start=1)]
    return found


def holds(group: Group, stratum: Stratum | None) -> bool:
    """Whether a device of that stratum is in the group; None: one whose stratum is not known."""
    if group.view == "fleet":
        return True
    if stratum is None:
        return False
    key = stratum.architecture if group.view == "architecture" else stratum.site
    return key == group.key
