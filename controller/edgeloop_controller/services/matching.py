"""Which devices a selector means now."""

from sqlalchemy.orm import Session

from edgeloop_controller.core.selector import Selector
from edgeloop_controller.services.fleet import Fleet


def matching_ids(session: Session, selector: Selector) -> set[str]:
    fleet = Fleet()
    fleet.refresh(session)
    return {device.id for device in fleet.devices.values() if selector.matches(device)}
