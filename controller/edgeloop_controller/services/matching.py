"""Which devices a selector means now."""

from sqlalchemy.orm import Session

from edgeloop_controller.core.selector import Selector
from edgeloop_controller.store import devices


def matching_ids(session: Session, selector: Selector) -> set[str]:
    return {
        device.id
        for device in devices.every(session)
        if selector.matches(device.id, devices.effective_labels(device))
    }
