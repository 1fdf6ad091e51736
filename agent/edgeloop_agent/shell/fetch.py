"""One fetch, from what is asked to the event that answers it. Whoever calls it decides when.

Invariant: exactly one event, whatever happens, but for what ends the whole process.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from edgeloop_agent.core.effects import FetchArtifact
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    FetchProblem,
    ManifestFetched,
)
from edgeloop_agent.errors import FetchCorruptError, FetchError, FetchNoSpaceError
from edgeloop_agent.ports import Fetch
from edgeloop_agent.shell.download import Downloader
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Manifest, parse_manifest
from edgeloop_protocol.messages import Inventory

logger = logging.getLogger(__name__)

FetchEvent = ManifestFetched | ArtifactFetched | FetchFailed


def perform(
    fetch: Fetch,
    downloader: Downloader,
    take_inventory: Callable[[], Inventory],
    cancelled: Callable[[], bool],
    parse: Callable[[bytes], Manifest] = parse_manifest,
) -> FetchEvent:
    """`parse` raises ManifestError; whoever performs the same fetch often may remember it."""
    try:
        return _perform(fetch, downloader, take_inventory, cancelled, parse)
    except ManifestError as error:
        return _failed(fetch, FetchProblem.UNUSABLE, str(error))
    except FetchCorruptError as error:
        return _failed(fetch, FetchProblem.CORRUPT, str(error))
    except FetchNoSpaceError as error:
        return replace(_failed(fetch, FetchProblem.WAIT, str(error)), for_room=True)
    except FetchError as error:
        return _failed(fetch, FetchProblem.WAIT, str(error))
    except OSError as error:
        return replace(_failed(fetch, FetchProblem.WAIT, f"disk: {error}"), for_room=True)
    except Exception as error:  # a bug must not end the fetcher: the slot tries again
        logger.exception("fetching %s failed", fetch.offer.ref)
        return _failed(fetch, FetchProblem.WAIT, f"internal: {error!r}")


def _perform(
    fetch: Fetch,
    downloader: Downloader,
    take_inventory: Callable[[], Inventory],
    cancelled: Callable[[], bool],
    parse: Callable[[bytes], Manifest],
) -> FetchEvent:
    offer = fetch.offer
    if isinstance(fetch, FetchArtifact):
        downloader.artifact(offer, cancelled, fetch.slot)
        return ArtifactFetched(fetch.slot, offer.manifest_digest)
    manifest = parse(downloader.manifest(offer, cancelled))
    return ManifestFetched(
        fetch.slot,
        offer.manifest_digest,
        manifest,
        take_inventory(),
        downloader.has_artifact(offer),
    )


def _failed(fetch: Fetch, problem: FetchProblem, detail: str) -> FetchFailed:
    return FetchFailed(fetch.slot, fetch.offer.manifest_digest, problem, detail)
