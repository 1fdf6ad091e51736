"""The shorter way to an artifact: a patch, applied to another version's artifact (ADR 0015).

Invariants: a hint and never more: whatever is wrong with it (no base, no such format, a bad patch,
an applier that crashes, hangs or takes too much) costs the patch's bytes, is said in an event, and
the full file is fetched at once. Only a link that fails waits, PATCH_FETCHES_MAX times. That a
patch is tried is durable before it is: one that brings down the device is never tried again. What
comes of it has a name of its own, which an applier that outlived its agent may write to, and has
the artifact's digest, or is removed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from edgeloop_agent.errors import (
    FetchCorruptError,
    FetchMissingError,
    FetchNoSpaceError,
    FetchUnreachableError,
    PatchFailedError,
)
from edgeloop_agent.ports import PatchApplier, PatchJob
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.model_store import (
    ModelStore,
    model_path,
    part_path,
    patched_path,
    tried_path,
)
from edgeloop_agent.shell.part_file import PartFiles, Wanted
from edgeloop_protocol.messages import Offer, Patch

PATCH_FETCHES_MAX: Final = 3
"""Of one patch, by one life of the agent: a link that fails that often is not to blame alone."""

PATCHES_REMEMBERED_MAX: Final = 64
_BEGUN: Final = b"begun"
_FAILED: Final = b"failed"

Note = Callable[[str, str], None]
"""Says an event, by name and detail."""


class PatchUnusableError(Exception):
    """Why the full file is fetched, in words."""


@dataclass(slots=True)
class PatchRoute:
    applier: PatchApplier
    store: ModelStore
    _failures: dict[str, int] = field(default_factory=dict)
    """Of fetching, by the patch's digest."""
    _given_up: set[str] = field(default_factory=set)
    """Digests of patches that failed in this life, also where no disk took note of it."""

    def take(
        self, offer: Offer, parts: PartFiles, cancelled: Callable[[], bool], note: Note
    ) -> str | None:
        """Where the artifact is, verified and synced; None: fetch the full file. Raises
        FetchUnreachableError where the patch shall be asked for again later."""
        patch = offer.patch
        if patch is None or patch.digest in self._given_up:
            return None
        try:
            if not self._is_shorter(offer, patch) or not self._is_untried(patch):
                return None
            self._check(offer, patch, parts)
            self._bring(patch, parts, cancelled)
            path = self._apply(offer, patch)
            self.store.disk.remove(part_path(patch.digest))
        except FetchUnreachableError:
            raise
        except Exception as error:  # also a bug here must not keep the full file away
            self._give_up(patch)
            note("patch_failed", f"{patch.format}, {patch.size_bytes} bytes: {error}")
            return None
        note(
            "patched",
            f"{patch.format}, {patch.size_bytes} bytes in place of {offer.artifact_size_bytes}",
        )
        return path

    def _is_shorter(self, offer: Offer, patch: Patch) -> bool:
        """Than what is left to download of the full file."""
        have = self.store.disk.size(part_path(offer.artifact_digest)) or 0
        return patch.size_bytes < offer.artifact_size_bytes - have

    def _is_untried(self, patch: Patch) -> bool:
        """False: it failed before, and that was said."""
        disk, tried = self.store.disk, tried_path(patch.digest)
        if disk.size(tried) is None:
            return True
        if disk.read(tried) != _FAILED:
            write_durably(disk, tried, _FAILED)
            raise PatchUnusableError("the agent ended while it was applied")
        return False

    def _check(self, offer: Offer, patch: Patch, parts: PartFiles) -> None:
        """Raises PatchUnusableError, before anything is fetched."""
        if patch.format not in self.applier.formats:
            raise PatchUnusableError("this device cannot apply the format")
        if self._failures.get(patch.digest, 0) >= PATCH_FETCHES_MAX:
            raise PatchUnusableError(f"it could not be fetched, {PATCH_FETCHES_MAX} times")
        if not parts.has_room(offer.artifact_size_bytes + patch.size_bytes):
            raise PatchUnusableError("the disk does not hold the patch and the artifact")
        base = self.store.disk.digest(model_path(patch.base_manifest_digest))
        if base != patch.base_artifact_digest:
            what = "is not here" if base is None else "is damaged"
            raise PatchUnusableError(f"its base {patch.base_manifest_digest[:12]} {what}")

    def _bring(self, patch: Patch, parts: PartFiles, cancelled: Callable[[], bool]) -> None:
        try:
            parts.bring(Wanted("patch", patch.digest, patch.size_bytes, cancelled))
        except (FetchMissingError, FetchCorruptError, FetchNoSpaceError, OSError) as error:
            raise PatchUnusableError(str(error)) from error
        except FetchUnreachableError:
            if not cancelled():
                self._count_failure(patch)
            raise

    def _count_failure(self, patch: Patch) -> None:
        if len(self._failures) >= PATCHES_REMEMBERED_MAX:
            self._failures.clear()
        self._failures[patch.digest] = self._failures.get(patch.digest, 0) + 1

    def _apply(self, offer: Offer, patch: Patch) -> str:
        disk, result = self.store.disk, patched_path(offer.artifact_digest)
        job = PatchJob(
            format=patch.format,
            base=model_path(patch.base_manifest_digest),
            patch=part_path(patch.digest),
            result=result,
            result_bytes=offer.artifact_size_bytes,
        )
        try:
            disk.remove(result)
            write_durably(disk, tried_path(patch.digest), _BEGUN)
            self.applier.apply(job)
            with disk.open(result, append=True) as file:
                file.sync()
            if disk.digest(result) != offer.artifact_digest:
                raise PatchFailedError("what came of it is not the artifact")
        except (PatchFailedError, OSError) as error:
            with suppress(OSError):
                disk.remove(result)
                write_durably(disk, tried_path(patch.digest), _FAILED)
            raise PatchUnusableError(str(error)) from error
        return result

    def _give_up(self, patch: Patch) -> None:
        if len(self._given_up) >= PATCHES_REMEMBERED_MAX:
            self._given_up.clear()
        self._given_up.add(patch.digest)
        with suppress(OSError):  # what is left there is garbage of the version
            self.store.disk.remove(part_path(patch.digest))
