"""The two versions that an agent under torture goes between, on a shelf beside its disk.

Invariant: reading the shelf imports nothing of a controller or a runtime, so that each of thousands
of agents starts as quickly as an agent does.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_protocol.limits import KIB
from edgeloop_protocol.messages import Offer, Patch

CHUNK_BYTES: Final = 32 * KIB
"""A version of some 100 KB comes in a few chunks, each of them a write."""
STREAM_NAME: Final = "stream.csv"
"""A recording, for the source of a real runner."""
_OFFERS_NAME: Final = "offers.json"


class Shelf:
    """An ArtifactSource: the network is not what is tortured here. `patched`: the second version is
    offered with a patch from the first."""

    def __init__(self, directory: Path, *, patched: bool = False) -> None:
        self.stream = directory / STREAM_NAME
        offers = json.loads((directory / _OFFERS_NAME).read_bytes())
        self.offers = tuple(
            Offer.model_validate(offer if patched else {**offer, "patch": None}) for offer in offers
        )
        digests = [d for o in self.offers for d in (o.manifest_digest, o.artifact_digest)]
        digests += [offer.patch.digest for offer in self.offers if offer.patch is not None]
        self._contents = {digest: (directory / digest).read_bytes() for digest in digests}

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        content = self._contents.get(digest)
        if content is None or offset > len(content):
            raise FetchUnreachableError("not on the shelf")
        yield (
            content[place : place + CHUNK_BYTES]
            for place in range(offset, len(content), CHUNK_BYTES)
        )


def write_offers(directory: Path, offers: list[Offer], patch: Patch) -> None:
    """`patch`: from the first to the second."""
    first, second = offers
    patched = second.model_copy(update={"patch": patch})
    document = [offer.model_dump(mode="json") for offer in (first, patched)]
    (directory / _OFFERS_NAME).write_text(json.dumps(document))
