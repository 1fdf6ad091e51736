"""What other distributions add to the agent, found by entry point.

Invariants: names are read from installed metadata, and only `load` imports anything, so that the
supervisor knows what there is without importing a runtime; of two with one name the first found
counts, which is said.
"""

import importlib.metadata
import logging
from typing import Any, Final

from edgeloop_agent.errors import PluginError

logger = logging.getLogger(__name__)

RUNTIMES: Final = "edgeloop.runtimes"
"""Name: the manifest's `artifact.runtime`; object: a class that is a `runner.runtimes.Runtime`."""

SOURCES: Final = "edgeloop.sources"
"""Name: the configuration's `kind`; object: `(options) -> runner.sources.SampleSource`."""

SINKS: Final = "edgeloop.sinks"
"""Name: the configuration's `kind`; object: `(options) -> runner.sinks.Sink`."""


def names(group: str) -> tuple[str, ...]:
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=group)}))


def load(group: str, name: str) -> Any:
    """Raises PluginError: there is none of that name, or it does not import."""
    points = tuple(importlib.metadata.entry_points(group=group, name=name))
    if not points:
        known = ", ".join(names(group)) or "none"
        raise PluginError(f"nothing installed is {name!r} of {group}; there is: {known}")
    if len(points) > 1:
        logger.warning("%s: %r is there %d times; %s counts", group, name, len(points), points[0])
    try:
        return points[0].load()
    except Exception as error:  # whatever a plug-in's import raises
        raise PluginError(f"{name!r} of {group} does not import: {error}") from error
