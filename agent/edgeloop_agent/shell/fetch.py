"""One fetch, from what is asked to the event that answers it. Whoever calls it decides when.

Invariants: exactly one event, whatever happens, but for what ends the whole process; where trust is
on, not a byte of a version is fetched before verified metadata lists it for this device.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from edgeloop_agent.core import trust
from edgeloop_agent.core.effects import FetchArtifact
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    FetchProblem,
    ManifestFetched,
)
from edgeloop_agent.errors import (
    FetchCorruptError,
    FetchError,
    FetchNoSpaceError,
    TrustUnavailableError,
)
from edgeloop_agent.ports import Fetch
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.trust_gate import TrustGate
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Manifest, parse_manifest
from edgeloop_protocol.messages import Inventory
from edgeloop_protocol.signed_release import SignedRelease

logger = logging.getLogger(__name__)


class _UntrustedError(Exception):
    def __init__(self, refused: trust.Refused) -> None:
        super().__init__(refused.detail)
        self.refused = refused


FetchEvent = ManifestFetched | ArtifactFetched | FetchFailed


def perform(
    fetch: Fetch,
    downloader: Downloader,
    take_inventory: Callable[[], Inventory],
    cancelled: Callable[[], bool],
    parse: Callable[[bytes], Manifest] = parse_manifest,
    gate: TrustGate | None = None,
) -> FetchEvent:
    """`parse` raises ManifestError; whoever performs the same fetch often may remember it. `gate`:
    None where unsigned versions are allowed."""
    try:
        return _perform(fetch, downloader, take_inventory, cancelled, parse, gate)
    except _UntrustedError as error:
        failed = _failed(fetch, FetchProblem.UNTRUSTED, error.refused.detail)
        return replace(failed, cause=error.refused.cause)
    except TrustUnavailableError as error:
        return _failed(fetch, FetchProblem.WAIT, str(error))
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
    gate: TrustGate | None,
) -> FetchEvent:
    offer = fetch.offer
    if isinstance(fetch, FetchArtifact):
        downloader.artifact(offer, cancelled, fetch.slot)
        return ArtifactFetched(fetch.slot, offer.manifest_digest)
    signed = None
    if gate is not None and not fetch.is_installed:
        signed = _accepted(gate.judge(fetch, take_inventory()))
    manifest = parse(downloader.manifest(offer, cancelled))
    if signed is not None:
        contradiction = trust.contradicts(signed, manifest.artifact.runtime)
        if contradiction:
            raise _UntrustedError(trust.Refused("not what was signed", contradiction))
    return ManifestFetched(
        fetch.slot,
        offer.manifest_digest,
        manifest,
        take_inventory(),
        downloader.has_artifact(offer),
        signed.release if signed is not None else 0,
    )


def _accepted(verdict: trust.Verdict) -> SignedRelease:
    match verdict:
        case trust.Accepted(release):
            return release
        case trust.Refused():
            raise _UntrustedError(verdict)
        case trust.WaitFor(why):
            raise TrustUnavailableError(why)


def _failed(fetch: Fetch, problem: FetchProblem, detail: str) -> FetchFailed:
    return FetchFailed(fetch.slot, fetch.offer.manifest_digest, problem, detail)
