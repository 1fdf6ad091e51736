"""Who may sign which of the documents that change together, and their signatures.

Invariant: pure but for the signers.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from edgeloop_controller.trust.acceptance import Judged
from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import ROOT, TARGETS, Document, Standing, document_of
from edgeloop_protocol.errors import TrustError


def sign(
    changed: Mapping[str, Metadata[Any]], standing: Standing | None, signers: Iterable[Signer]
) -> dict[str, list[str]]:
    """Sign each role with those of the signers that may; role → ids of the keys that signed.

    Raises TrustError for a signer that may sign nothing of it.
    """
    done: dict[str, list[str]] = {role: [] for role in changed}
    for signer in signers:
        keyid = signer.public_key.keyid
        mine = [role for role in changed if keyid in may_sign(role, changed, standing)]
        if not mine:
            raise TrustError(
                f"key {keyid[:12]} may sign none of {', '.join(changed)}",
                "`edgeloop trust status` shows whose signature each role takes",
            )
        for role in mine:
            try:
                changed[role].sign(signer, append=True)
            except UnsignedMetadataError as error:
                raise TrustError(f"{role} cannot be signed: {error}") from error
            done[role].append(keyid)
    return done


def may_sign(
    role: str, changed: Mapping[str, Metadata[Any]], standing: Standing | None
) -> set[str]:
    """Ids of keys; of a root the old one's as well as its own."""
    roots = [standing.root.signed] if standing else []
    if ROOT in changed:
        roots.append(changed[ROOT].signed)
    if role == ROOT:
        return {keyid for root in roots for keyid in root.roles[ROOT].keyids}
    if role == TARGETS:
        return set(roots[-1].roles[TARGETS].keyids)
    targets = changed[TARGETS].signed if TARGETS in changed else None
    if targets is None and standing is not None:
        targets = standing.targets.signed
    delegated = delegated_roles(targets).get(role) if targets is not None else None
    return set(delegated.keyids) if delegated is not None else set()


def documents(changed: Mapping[str, Metadata[Any]]) -> dict[str, Document[Any]]:
    return {role: document_of(role, metadata) for role, metadata in changed.items()}


def joined(one: Document[Any], other: Document[Any]) -> Document[Any]:
    """The same content with the signatures of both; of two by one key, that of `one`."""
    signatures = {**other.metadata.signatures, **one.metadata.signatures}
    return document_of(one.role, Metadata(one.signed, signatures))


def with_counting_signatures(
    documents: Mapping[str, Document[Any]], judged: Judged
) -> dict[str, Document[Any]]:
    """Whatever else stood around what is signed is not kept, and not served."""
    counting: dict[str, set[str]] = {}
    for count in judged.counts:
        counting.setdefault(count.role, set()).update(count.signed)
    return {
        role: document_of(
            role,
            Metadata(
                document.signed,
                {
                    keyid: signature
                    for keyid, signature in document.metadata.signatures.items()
                    if keyid in counting[role]
                },
            ),
        )
        for role, document in documents.items()
    }
