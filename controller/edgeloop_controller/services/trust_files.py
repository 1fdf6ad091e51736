"""What stands, read from its files and written to them.

Invariants: the highest version of each role is what stands, since files change together; what is
read verifies from the first root on, or the controller does not start; every root is kept for ever
(a device may know the first only), of other roles the newest few.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_controller.errors import NotFoundError, StartError
from edgeloop_controller.trust.acceptance import verification
from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Document,
    Standing,
    file_name,
    is_file_name,
    read_document,
    read_root,
    read_targets,
    role_and_version,
)
from edgeloop_controller.trust.renewal import Online
from edgeloop_controller.trust_store import TrustStore
from edgeloop_protocol.errors import TrustError

METADATA: Final = "metadata/"
WAITING: Final = "waiting.json"
VERSIONS_KEPT: Final = 4
"""Of roles but root: a device that reads while something new is accepted still finds the old."""


@dataclass(frozen=True)
class Proposal:
    """Documents that change together, and lack signatures. `at`: when it came."""

    at: float
    documents: Mapping[str, Document[Any]]


@dataclass(frozen=True)
class InForce:
    standing: Standing
    online: Online


def read_in_force(store: TrustStore) -> InForce | None:
    """None: trust is not initialised. Raises StartError for what does not verify."""
    newest = _newest(store)
    if ROOT not in newest:
        return None
    try:
        root = _chain(store, newest[ROOT])
        targets = read_targets(TARGETS, _read(store, TARGETS, newest[TARGETS]))
        roles = {TARGETS: targets}
        for role in delegated_roles(targets.signed):
            if role in newest:
                roles[role] = read_targets(role, _read(store, role, newest[role]))
        standing = Standing(root, roles)
        for role in roles:
            if not verification(role, standing):
                raise TrustError(f"{file_name(role, newest[role])} is not signed as it must be")
        snapshot = read_document(SNAPSHOT, _read(store, SNAPSHOT, newest[SNAPSHOT]))
        timestamp = read_document(TIMESTAMP, _read(store, TIMESTAMP, 0))
        return InForce(standing, Online(snapshot, timestamp))
    except (TrustError, NotFoundError, KeyError) as error:
        raise StartError(
            f"what <data_dir>/trust holds cannot be trusted: {error}",
            hint="restore the directory from a backup; without it the controller would offer what "
            "nobody signed",
        ) from error


def read_waiting(store: TrustStore) -> tuple[Proposal, ...]:
    """What cannot be read waits no more: it can be proposed again."""
    try:
        listed = json.loads(store.read(WAITING))
        return tuple(
            Proposal(
                float(one["at"]),
                {r: read_document(r, text.encode()) for r, text in one["documents"].items()},
            )
            for one in listed
        )
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError, TrustError):
        return ()


def changes_of(
    before: InForce | None, after: InForce, names: Iterable[str]
) -> dict[str, str | None]:
    """Files that are written, in an order in which a reader never sees a timestamp of what is not
    there yet, and files that are removed. `names`: those that there are."""
    new: list[Document[Any]] = [*after.standing.roles.values(), after.online.snapshot]
    new += [after.standing.root, after.online.timestamp]
    old: list[Document[Any]] = []
    if before is not None:
        old = [before.standing.root, *before.standing.roles.values()]
        old += [before.online.snapshot, before.online.timestamp]
    changes: dict[str, str | None] = {
        METADATA + document.file_name: document.content.decode()
        for document in new
        if document not in old
    }
    newest = {document.role: document.version for document in new}
    for name in names:
        role, version = _parsed(name)
        if role not in ("", ROOT, TIMESTAMP) and version <= newest.get(role, 0) - VERSIONS_KEPT:
            changes[name] = None
    return changes


def waiting_text(waiting: Iterable[Proposal]) -> str:
    return json.dumps(
        [
            {"at": one.at, "documents": {r: d.content.decode() for r, d in one.documents.items()}}
            for one in waiting
        ]
    )


def _chain(store: TrustStore, newest: int) -> Document[Any]:
    """The newest root, verified from the first."""
    root = read_root(_read(store, ROOT, 1))
    previous = None
    for version in range(1, newest + 1):
        root = read_root(_read(store, ROOT, version))
        metadata = root.metadata
        try:
            result = root.signed.get_root_verification_result(
                previous, metadata.signed_bytes, metadata.signatures
            )
        except ValueError as error:
            raise TrustError(f"{file_name(ROOT, version)}: {error}") from error
        if not result or root.version != version:
            raise TrustError(f"{file_name(ROOT, version)} is not signed as it must be")
        previous = root.signed
    return root


def _newest(store: TrustStore) -> dict[str, int]:
    newest: dict[str, int] = {}
    for name in store.names():
        role, version = _parsed(name)
        if role:
            newest[role] = max(newest.get(role, 0), version)
    return newest


def _parsed(name: str) -> tuple[str, int]:
    """Role and version of a file of metadata; an empty role for any other file."""
    file = name.removeprefix(METADATA)
    return role_and_version(file) if file != name and is_file_name(file) else ("", 0)


def _read(store: TrustStore, role: str, version: int) -> bytes:
    return store.read(METADATA + file_name(role, version))
