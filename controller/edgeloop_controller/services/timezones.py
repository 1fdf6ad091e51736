"""Zones of devices, by the IANA database of the system or of the `tzdata` package."""

import logging
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

logger = logging.getLogger(__name__)

ZONES_KEPT_MAX: Final = 1024


def utc_offset(zone: str, at: float) -> float:
    """Seconds east of UTC at that time; 0, and a word in the log, for a zone that is not known."""
    offset = datetime.fromtimestamp(at, _zone(zone)).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def is_known(zone: str) -> bool:
    return not zone or _find(zone) is not None


@lru_cache(ZONES_KEPT_MAX)
def _zone(zone: str) -> tzinfo:
    found = _find(zone) if zone else UTC
    if found is None:
        logger.warning("timezone %r is not known; a device with it is taken to be at UTC", zone)
    return found or UTC


def _find(zone: str) -> tzinfo | None:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
