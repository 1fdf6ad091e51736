"""What other distributions add to the agent, found by entry point.

Invariants: names are read from installed metadata, and only `load` imports anything, so that the
supervisor knows what there is without importing a runtime; of two with one name the first found
counts, which is said; a name of ours is always ours, and found without the reader of metadata
(1.8 MB, which a runner that needs no plug-in does not pay).
"""

import importlib
import logging
from collections.abc import Mapping
from typing import Any, Final

from edgeloop_agent.errors import PluginError

logger = logging.getLogger(__name__)

RUNTIMES: Final = "edgeloop.runtimes"
"""Name: the manifest's `artifact.runtime`; object: a class that is a `runner.runtimes.Runtime`."""

SOURCES: Final = "edgeloop.sources"
"""Name: the configuration's `kind`; object: `(options) -> runner.sources.SampleSource`."""

SINKS: Final = "edgeloop.sinks"
"""Name: the configuration's `kind`; object: `(options) -> runner.sinks.Sink`."""

OURS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    (RUNTIMES, "onnx"): ("edgeloop_agent.runner.runtime_onnx", "OnnxRuntime"),
    (RUNTIMES, "tflite"): ("edgeloop_agent.runner.runtime_tflite", "TfliteRuntime"),
}
"""The entry points of the agent's own pyproject.toml."""


def names(group: str) -> tuple[str, ...]:
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load(group: str, name: str) -> Any:
    """Raises PluginError: there is none of that name, or it does not import."""
    try:
        if (group, name) in OURS:
            module, attribute = OURS[group, name]
            return getattr(importlib.import_module(module), attribute)
        return _found(group, name).load()
    except PluginError:
        raise
    except Exception as error:  # whatever a plug-in's import raises
        raise PluginError(f"{name!r} of {group} does not import: {error}") from error


def _found(group: str, name: str) -> Any:
    from importlib.metadata import entry_points

    points = tuple(entry_points(group=group, name=name))
    if not points:
        known = ", ".join(names(group)) or "none"
        raise PluginError(f"nothing installed is {name!r} of {group}; there is: {known}")
    if len(points) > 1:
        logger.warning("%s: %r is there %d times; %s counts", group, name, len(points), points[0])
    return points[0]
