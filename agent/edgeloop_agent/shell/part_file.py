"""Fetching one content-addressed file into its `.part`: resumed, bounded, verified, synced.

Invariants: never more than the offered size is written; a partial file is resumed, and removed once
its digest is wrong. Only bytes that all came in one go can be called corrupt: what a power cut left
of an earlier try says nothing about the server.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgeloop_agent.errors import (
    FetchCorruptError,
    FetchNoSpaceError,
    FetchUnreachableError,
)
from edgeloop_agent.ports import ArtifactSource, Disk
from edgeloop_agent.shell.durable_files import write_all
from edgeloop_agent.shell.model_store import part_path


@dataclass(frozen=True, slots=True)
class Wanted:
    what: str
    """In words, for errors."""
    digest: str
    size_bytes: int
    cancelled: Callable[[], bool]

    @property
    def part(self) -> str:
        return part_path(self.digest)


class PartFiles:
    def __init__(self, source: ArtifactSource, disk: Disk, disk_reserve_bytes: int) -> None:
        self._source = source
        self._disk = disk
        self._disk_reserve_bytes = disk_reserve_bytes

    def bring(self, wanted: Wanted) -> None:
        """Return when the `.part` is whole, verified and synced. Raises a FetchError or OSError."""
        is_resumed = bool(self._disk.size(wanted.part))
        if not self._is_filled_right(wanted) and (
            not is_resumed or not self._is_filled_right(wanted)
        ):
            raise FetchCorruptError(f"the {wanted.what}'s bytes are not what its digest names")

    def has_room(self, size_bytes: int) -> bool:
        return self._disk.free_bytes() >= size_bytes + self._disk_reserve_bytes

    def _is_filled_right(self, wanted: Wanted) -> bool:
        """What is wrong is removed: the next one begins anew."""
        self._fill(wanted)
        digest = self._disk.digest(wanted.part)
        if digest is None:
            raise FetchNoSpaceError(f"the downloaded {wanted.what} cannot be read back")
        if digest != wanted.digest:
            self._disk.remove(wanted.part)
        return digest == wanted.digest

    def _fill(self, wanted: Wanted) -> None:
        part, size = wanted.part, wanted.size_bytes
        have = self._disk.size(part) or 0
        if have > size:
            self._disk.remove(part)
            have = 0
        free = self._disk.free_bytes()
        if free < size - have + self._disk_reserve_bytes:
            raise FetchNoSpaceError(f"disk: {free} bytes free, {size - have} to download")
        with self._disk.open(part, append=True) as file:
            try:
                if have < size:
                    have = self._append(file.write, have, wanted)
            finally:
                # Also of a file that was whole already: a kill may have come before its sync.
                file.sync()
        if have < size:
            # A link that breaks raises: here the server itself said that this is all there is.
            self._disk.remove(part)
            raise FetchCorruptError(f"the {wanted.what} is only {have} of the {size} bytes offered")

    def _append(self, write: Callable[[bytes], int], have: int, wanted: Wanted) -> int:
        size = wanted.size_bytes
        with self._source.open(wanted.digest, have) as chunks:
            for chunk in chunks:
                if wanted.cancelled():
                    raise FetchUnreachableError("no longer wanted")
                have += len(chunk)
                if have > size:
                    self._disk.remove(wanted.part)
                    raise FetchCorruptError(
                        f"the {wanted.what} is longer than the {size} bytes offered"
                    )
                write_all(write, chunk)
        return have
