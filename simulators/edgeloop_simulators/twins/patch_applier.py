"""Applies patches in memory: the twin of the agent's child process.

Invariants: the same contract as the real one; the same decoders, in the caller's own process, so
only for patches that a test made; `fault` stands for whatever may befall the child.
"""

import io
from collections.abc import Callable

from edgeloop_agent.errors import PatchFailedError
from edgeloop_agent.ports import Disk, PatchJob
from edgeloop_protocol.errors import PatchError
from edgeloop_protocol.patch_formats import HDIFF, TENSORS


class MemoryPatchApplier:
    def __init__(self, disk: Disk, formats: tuple[str, ...] = (TENSORS, HDIFF)) -> None:
        self._disk = disk
        self.formats = formats
        self.fault: Callable[[PatchJob], None] | None = None
        self.jobs: list[PatchJob] = []

    def apply(self, job: PatchJob) -> None:
        self.jobs.append(job)
        if self.fault is not None:
            self.fault(job)
        try:
            base, patch = self._disk.read(job.base), self._disk.read(job.patch)
            result = _apply(job, base, patch)
            with self._disk.open(job.result) as file:
                file.write(result)
        except (PatchError, OSError) as error:
            raise PatchFailedError(str(error)) from error


def _apply(job: PatchJob, base: bytes, patch: bytes) -> bytes:
    if job.format == TENSORS:
        from edgeloop_protocol.tensor_patch import apply_tensor_patch

        made = io.BytesIO()
        apply_tensor_patch(io.BytesIO(base), io.BytesIO(patch), made.write, job.result_bytes)
        return made.getvalue()
    if job.format == HDIFF:
        import hdiffpatch

        try:
            result: bytes = hdiffpatch.apply(base, patch)
        except (hdiffpatch.HDiffPatchError, MemoryError) as error:
            raise PatchError(str(error)) from error
        if len(result) != job.result_bytes:
            raise PatchError(f"it gives {len(result)} bytes in place of {job.result_bytes}")
        return result
    raise PatchError(f"unknown format {job.format!r}")
