"""What a proposal changes, in sentences for who is to sign it.

Invariant: pure; whatever differs in what is signed gives a sentence.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tuf.api.metadata import Metadata, Role

from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import (
    ROOT,
    TARGETS,
    Document,
    Standing,
    document_of,
    releases_of,
)
from edgeloop_protocol.signed_release import SignedRelease

KEYID_SHOWN_CHARS = 12


def sentences(changed: Mapping[str, Metadata[Any]], standing: Standing | None) -> list[str]:
    """One a change, role by role. Raises TrustError for targets that are no releases."""
    said = []
    for role, metadata in changed.items():
        document = document_of(role, metadata)
        said.append(f"{role} {document.version}, until {document.expires:%Y-%m-%d %H:%M} UTC:")
        changes = list(_of_root(document, standing) if role == ROOT else _of(document, standing))
        said += [f"  {change}" for change in changes or ["the same as before"]]
    return said


def _of_root(document: Document[Any], standing: Standing | None) -> Iterator[str]:
    before = standing.root.signed.roles if standing else {}
    for name, role in sorted(document.signed.roles.items()):
        yield from _of_role(name, role, before.get(name))


def _of_role(name: str, role: Role, before: Role | None) -> Iterator[str]:
    had = before.keyids if before else []
    for keyid in role.keyids:
        if keyid not in had:
            yield f"key {keyid[:KEYID_SHOWN_CHARS]} may sign {name}"
    for keyid in had:
        if keyid not in role.keyids:
            yield f"key {keyid[:KEYID_SHOWN_CHARS]} may sign {name} no more"
    if before is None or role.threshold != before.threshold:
        was = f" ({before.threshold} before)" if before else ""
        signatures = "signature" if role.threshold == 1 else "signatures"
        yield f"{name} asks for {role.threshold} {signatures} of {len(role.keyids)} keys{was}"


def _of(document: Document[Any], standing: Standing | None) -> Iterator[str]:
    role = document.role
    stands = standing.roles.get(role) if standing else None
    if role == TARGETS:
        had = delegated_roles(stands.signed) if stands else {}
        for name, delegated in delegated_roles(document.signed).items():
            yield from _of_role(name, delegated, had.get(name))
    before = releases_of(stands) if stands else {}
    after = releases_of(document)
    for key, release in after.items():
        if before.get(key) is None:
            yield f"signs {in_words(release)}"
        elif before[key] != release:
            yield f"signs anew {in_words(release)}; before: {in_words(before[key])}"
    for key in before:
        if key not in after:
            yield f"withdraws {'@'.join(key)}"


def in_words(release: SignedRelease) -> str:
    """`watch@1.3 as release 7, back to 6 at the least, for slot left of devices site=berlin`"""
    slots = f"slot {', '.join(release.slots)}" if release.slots else "any slot"
    devices = f"devices {release.selector}" if release.selector else "any device"
    return (
        f"{release.model}@{release.version} as release {release.release}, back to "
        f"{release.rollback_floor} at the least, for {slots} of {devices}"
    )
