"""The versions on this device's disk: `models/<manifest digest>/{manifest.json, model.onnx}`.

Invariants: a file under its final name was verified and synced; a partial download is
`models/<artifact or patch digest>.part`; what is not kept is removed, and nothing else is touched.
"""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final

from edgeloop_agent.ports import Disk
from edgeloop_agent.shell.durable_files import write_durably

DIRECTORY: Final = "models"
PART_SUFFIX: Final = ".part"
TRIED_SUFFIX: Final = ".tried"
PATCHED_SUFFIX: Final = ".patched"


def manifest_path(manifest_digest: str) -> str:
    return f"{DIRECTORY}/{manifest_digest}/manifest.json"


def model_path(manifest_digest: str) -> str:
    return f"{DIRECTORY}/{manifest_digest}/model.onnx"


def part_path(artifact_digest: str) -> str:
    return f"{DIRECTORY}/{artifact_digest}{PART_SUFFIX}"


def tried_path(patch_digest: str) -> str:
    """It is there: the patch was tried."""
    return f"{DIRECTORY}/{patch_digest}{TRIED_SUFFIX}"


def patched_path(artifact_digest: str) -> str:
    """What a patch makes, until it is verified."""
    return f"{DIRECTORY}/{artifact_digest}{PATCHED_SUFFIX}"


class ModelStore:
    """That `models` itself survives a power cut is the journal's doing, which stands beside it and
    is saved before any version counts."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        with suppress(OSError):  # a full disk: there is nothing to keep yet
            disk.make_directory(DIRECTORY)

    def put_manifest(self, manifest_digest: str, document: bytes) -> None:
        self._make_place(manifest_digest)
        write_durably(self.disk, manifest_path(manifest_digest), document)

    def put_model(self, manifest_digest: str, part: str) -> None:
        """Move a verified and synced file to its final name."""
        self._make_place(manifest_digest)
        self.disk.rename(part, model_path(manifest_digest))
        self.sync_names(manifest_digest)

    def sync_names(self, manifest_digest: str) -> None:
        """Of a version's files; also of those found in place, whose sync may have failed then."""
        self.disk.sync_directory(f"{DIRECTORY}/{manifest_digest}")

    def collect_garbage(self, manifests: AbstractSet[str], artifacts: AbstractSet[str]) -> None:
        try:
            names = self.disk.list(DIRECTORY)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith("/"):
                if name[:-1] not in manifests:
                    self.disk.remove_tree(f"{DIRECTORY}/{name[:-1]}")
            elif name.partition(".")[0] not in artifacts:
                self.disk.remove(f"{DIRECTORY}/{name}")

    def _make_place(self, manifest_digest: str) -> None:
        self.disk.make_directory(DIRECTORY)
        self.disk.make_directory(f"{DIRECTORY}/{manifest_digest}")
        self.disk.sync_directory(DIRECTORY)
