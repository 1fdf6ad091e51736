"""Labels from an annotator.

Invariants: all labels of a request are stored or none; a label must be one of the sample's
version's own, so that a typing error does not become a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop_controller.errors import NotFoundError, RefusedInputError
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import samples
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock


@dataclass(frozen=True)
class GivenLabel:
    sample_id: int
    label: str


class Labelling:
    def __init__(self, database: Database, registry: Registry, clock: Clock) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock

    def put(self, labels: Sequence[GivenLabel], annotator: str) -> int:
        """How many were stored. Raises NotFoundError or RefusedInputError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            for given in labels:
                sample = samples.put_label(session, given.sample_id, given.label, annotator, now)
                if sample is None:
                    raise NotFoundError(
                        f"no sample {given.sample_id}; nothing of the request was stored",
                        hint="GET /v1/samples lists those that wait for a label",
                    )
                known = self._labels_of(sample.manifest_digest)
                if known is not None and given.label not in known:
                    raise RefusedInputError(
                        f"sample {given.sample_id}: {given.label!r} is no label of its version; "
                        "nothing of the request was stored",
                        hint=f"its labels: {', '.join(known[:20])}",
                    )
        return len(labels)

    def _labels_of(self, manifest_digest: str) -> tuple[str, ...] | None:
        """None: the sample is of a version that this controller never published."""
        try:
            return self._registry.manifest(manifest_digest).labels
        except NotFoundError:
            return None
