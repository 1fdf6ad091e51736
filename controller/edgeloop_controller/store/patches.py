"""Queries over patches between artifacts, and over the devices that may use them."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Text, cast, delete, select
from sqlalchemy.orm import Session

from edgeloop_controller.store.devices import IDS_A_QUERY
from edgeloop_controller.store.tables import ArtifactPatch, Device, DeviceSlot


def every(session: Session) -> Sequence[ArtifactPatch]:
    """Oldest first."""
    return session.scalars(
        select(ArtifactPatch).order_by(ArtifactPatch.made_at, ArtifactPatch.format)
    ).all()


def remove(session: Session, digests: Collection[str]) -> None:
    """The pairs stay known as without a patch: none of what was removed is made again."""
    session.execute(delete(ArtifactPatch).where(ArtifactPatch.digest.in_(digests)))


def are_wanted(session: Session) -> bool:
    """Whether any device can apply any."""
    inventory = cast(Device.inventory, Text)
    query = select(Device.id).where(inventory.contains('"patch_formats"')).limit(1)
    return session.scalar(query) is not None


def applied_by(session: Session, ids: Iterable[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """(device, slot, champion's manifest digest, patch formats) of those that can apply any."""
    query = (
        select(
            DeviceSlot.device_id,
            DeviceSlot.slot,
            DeviceSlot.champion_digest,
            cast(Device.inventory, Text),
        )
        .join(Device)
        .where(DeviceSlot.champion_digest.is_not(None))
    )
    wanted = sorted(ids)
    for first in range(0, len(wanted), IDS_A_QUERY):
        some = DeviceSlot.device_id.in_(wanted[first : first + IDS_A_QUERY])
        for device_id, slot, champion, inventory in session.execute(query.where(some)):
            if '"patch_formats"' in inventory:
                document: dict[str, Any] = json.loads(inventory)
                yield device_id, slot, str(champion), list(document.get("patch_formats", ()))
