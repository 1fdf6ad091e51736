"""Every fsync of the agent, and the proof that each is needed: without it, torture finds a loss.

`found_by` says which torture: those behind the Disk port on the strict disk, where a run is the
same each time; the real disk's and SQLite's by power cuts on ext4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from edgeloop_simulators.torture import strict_disk, trust_store
from edgeloop_simulators.torture.power import PowerCuts
from edgeloop_simulators.virtual.seeds.mutation import Edit, Mutant, plant

CUTS_MAX: Final = 300
_SHELL: Final = "edgeloop_agent.shell."


class By(Enum):
    STRICT_DISK = "every operation on a strict disk"
    TRUST_STORE = "every operation of the trust store"
    POWER_CUTS = "power cuts on ext4"


@dataclass(frozen=True)
class Fsync:
    says: str
    found_by: By
    edit: Edit


@dataclass(frozen=True)
class Proof:
    """`found` is empty where nothing was lost without the fsync."""

    fsync: str
    found: str
    tried: int


def _strict(says: str, function: str, old: str) -> Fsync:
    return Fsync(says, By.STRICT_DISK, Edit(_SHELL + function, old, "pass"))


FSYNCS: Final[dict[str, Fsync]] = {
    "file": _strict(
        "the content of a file, before it gets its name",
        "durable_files:write_durably",
        "file.sync()",
    ),
    "name": _strict(
        "the name that a file got",
        "durable_files:write_durably",
        "disk.sync_directory(directory_of(path))",
    ),
    "metadata-found": Fsync(
        "the names of verified metadata that are there already",
        By.TRUST_STORE,
        Edit(
            "edgeloop_agent.trust.metadata_store:MetadataStore.begin",
            'self._disk.sync_directory("")',
            "pass",
        ),
    ),
    "artifact": _strict(
        "the content of a downloaded model", "part_file:PartFiles._fill", "file.sync()"
    ),
    "patched": _strict(
        "the content of a model that a patch made", "patch_route:PatchRoute._apply", "file.sync()"
    ),
    "artifact-name": _strict(
        "the name that a downloaded model got",
        "model_store:ModelStore.put_model",
        "self.sync_names(manifest_digest)",
    ),
    "names": _strict(
        "the names of a version's files",
        "model_store:ModelStore.sync_names",
        'self.disk.sync_directory(f"{DIRECTORY}/{manifest_digest}")',
    ),
    "version-directory": _strict(
        "the directory of a version",
        "model_store:ModelStore._make_place",
        "self.disk.sync_directory(DIRECTORY)",
    ),
    "manifest-found": _strict(
        "the name of a manifest that is there already",
        "download:Downloader.manifest",
        "self._store.sync_names(offer.manifest_digest)",
    ),
    "artifact-found": _strict(
        "the name of a model that is there already",
        "download:Downloader.artifact",
        "self._store.sync_names(offer.manifest_digest)",
    ),
    "file-of-the-real-disk": Fsync(
        "fsync of a file",
        By.POWER_CUTS,
        Edit(_SHELL + "os_disk:_OsFile.sync", "os.fsync(self._file.fileno())", "pass"),
    ),
    "directory-of-the-real-disk": Fsync(
        "fsync of a directory",
        By.POWER_CUTS,
        Edit(_SHELL + "os_disk:_sync_directory", "os.fsync(descriptor)", "pass"),
    ),
    "outbox": Fsync(
        "SQLite's fsyncs",
        By.POWER_CUTS,
        Edit(_SHELL + "outbox_file:_open", "PRAGMA synchronous=FULL", "PRAGMA synchronous=OFF"),
    ),
}


def prove(name: str, shelf: Path, seed: int) -> Proof:
    """Play without the fsync until something is lost."""
    fsync = FSYNCS[name]
    with plant(Mutant(fsync.says, (fsync.edit,), seed)):
        problems = _problems(fsync.found_by, shelf, seed)
        tried = 0
        for tried, found in enumerate(problems, start=1):
            if found:
                return Proof(name, found, tried)
    return Proof(name, "", tried)


def _problems(found_by: By, shelf: Path, seed: int) -> Iterator[str]:
    if found_by is By.POWER_CUTS:
        return _cut(shelf, seed)
    played = strict_disk.play(shelf) if found_by is By.STRICT_DISK else trust_store.play()
    return (next(iter(struck.problems), "") for struck in played)


def _cut(shelf: Path, seed: int) -> Iterator[str]:
    with PowerCuts(shelf, seed) as cuts:
        for cut in cuts.play(CUTS_MAX):
            yield next(iter(cut.problems), "")
