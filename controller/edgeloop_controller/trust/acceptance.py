"""What the controller accepts of people: a proposal, judged by what stands.

    root        grows by one; signed by the old threshold and by its own; keeps the rules of keys
    targets     grows by one; delegates one model to a role of its name, and nothing else
    MODEL       grows by one; is delegated; signs that model only
    all         expires ahead; what is signed is published so; counters are used once and grow;
                afterwards every role verifies by its delegator

Invariants: pure; a proposal is accepted wholly or not at all; what is judged `lacking` keeps every
rule but has too few signatures, and at least one that counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from securesystemslib.exceptions import Error as SigningError
from tuf.api.metadata import Root, Targets, VerificationResult

from edgeloop_controller.trust.key_rules import (
    check_delegations,
    check_keys_of_root,
    delegated_roles,
    public_value,
)
from edgeloop_controller.trust.metadata import (
    ONLINE,
    ROOT,
    TARGETS,
    Document,
    Standing,
)
from edgeloop_controller.trust.release_rules import Published, check_releases
from edgeloop_protocol.errors import TrustError

Offered = Mapping[str, Document[Any]]


@dataclass(frozen=True)
class Around:
    """What a proposal is judged by besides what stands."""

    now: datetime
    held_keys: Collection[str]
    """Ids of the online keys that the controller holds."""
    published: Published


@dataclass(frozen=True)
class Count:
    """Signatures of one role, by one delegator."""

    role: str
    signed: tuple[str, ...]
    """Ids of keys."""
    threshold: int
    by: str
    """`root 2`, `targets 5`: whose keys they are."""

    @property
    def lacks(self) -> int:
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True)
class Judged:
    """`standing`: what would stand if it were accepted, which it is if `lacking` is empty."""

    standing: Standing
    counts: tuple[Count, ...]

    @property
    def lacking(self) -> tuple[Count, ...]:
        return tuple(count for count in self.counts if count.lacks)


def judge(offered: Offered, standing: Standing | None, around: Around) -> Judged:
    """Raises TrustError for what can never be accepted as it is."""
    root = _root(offered.get(ROOT), standing, around)
    roles = _roles(offered, standing)
    _check_roles(offered, root, roles, standing, around)
    after = Standing(root, roles)
    check_releases(after, standing, around.published)
    counts = _counts(offered, standing, after)
    _check_whole(offered, after)
    return Judged(after, counts)


def verification(role: str, after: Standing) -> VerificationResult:
    """Of a targets role that has metadata. Raises TrustError when nobody delegates to it."""
    delegator: Root | Targets = after.root.signed if role == TARGETS else after.targets.signed
    return _verification(role, after.roles[role], delegator)


def _root(
    offered: Document[Any] | None, standing: Standing | None, around: Around
) -> Document[Root]:
    if offered is None:
        if standing is None:
            raise TrustError("a first root is missing", "begin with `edgeloop trust init`")
        return standing.root
    root = cast(Document[Root], offered)
    _check_version(root, standing.root.version if standing else 0)
    _check_expiry(root, around.now)
    check_keys_of_root(root.signed, around.held_keys)
    return root


def _roles(offered: Offered, standing: Standing | None) -> dict[str, Document[Targets]]:
    """As they would stand. A delegation that was made is kept."""
    before = standing.roles if standing else {}
    changed = {role: document for role, document in offered.items() if role not in (ROOT, *ONLINE)}
    if strange := [role for role in offered if role in ONLINE]:
        raise TrustError(f"{strange[0]} is signed by the controller, and by nobody else")
    roles = {**before, **changed}
    if TARGETS not in roles:
        raise TrustError("a first targets is missing", "begin with `edgeloop trust init`")
    delegated = delegated_roles(roles[TARGETS].signed)
    for role in changed:
        if role != TARGETS and role not in delegated:
            raise TrustError(
                f"targets delegates nothing to {role}", f"`edgeloop trust add-key {role} PUBLIC`"
            )
    if gone := [role for role in roles if role != TARGETS and role not in delegated]:
        # Devices keep its version in their snapshot: it could never be delegated to again.
        raise TrustError(f"the delegation to {gone[0]} is gone", "give it other keys instead")
    return roles


def _check_roles(
    offered: Offered,
    root: Document[Root],
    roles: Mapping[str, Document[Targets]],
    standing: Standing | None,
    around: Around,
) -> None:
    keys = root.signed.keys
    online = {public_value(keys[id_]) for r in ONLINE for id_ in root.signed.roles[r].keyids}
    for role, document in roles.items():
        if role in offered:
            before = standing.roles.get(role) if standing else None
            _check_version(document, before.version if before else 0)
            _check_expiry(document, around.now)
        if role == TARGETS:
            check_delegations(document.signed, online)
        elif document.signed.delegations is not None:
            raise TrustError(f"{role}: a delegated role delegates nothing further")


def _check_version(document: Document[Any], before: int) -> None:
    if document.version != before + 1:
        raise TrustError(
            f"{document.role}: version {document.version} does not follow {before}, which stands",
            "fetch what stands now and sign again",
        )


def _check_expiry(document: Document[Any], now: datetime) -> None:
    if document.expires <= now:
        raise TrustError(f"{document.role}: it expired at {document.expires:%Y-%m-%d %H:%M} UTC")


# ---- signatures ---------------------------------------------------------------------------------


def _counts(offered: Offered, standing: Standing | None, after: Standing) -> tuple[Count, ...]:
    """Raises TrustError for a document that nobody who may has signed, unless who may is decided
    by another document of the proposal."""
    counts = []
    for role, document in offered.items():
        if role == ROOT:
            # Both thresholds: the new root's keys, and before all those of the one that stands.
            roots = [standing.root, after.root] if standing else [after.root]
            found = [
                _count(role, _verification(role, document, root.signed), root) for root in roots
            ]
            ahead = False
        else:
            delegator = after.root if role == TARGETS else after.targets
            found = [_count(role, verification(role, after), delegator)]
            ahead = delegator.role in offered
        if not found[0].signed and not ahead:
            raise TrustError(
                f"{role}: no signature on it is of a key of {found[0].by}",
                "sign with a key that `edgeloop trust status` shows for it",
            )
        counts += found
    return tuple(counts)


def _count(role: str, result: VerificationResult, delegator: Document[Any]) -> Count:
    by = f"{delegator.role} {delegator.version}"
    return Count(role, tuple(result.signed), result.threshold, by)


def _verification(
    role: str, document: Document[Any], delegator: Root | Targets
) -> VerificationResult:
    metadata = document.metadata
    try:
        return delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (ValueError, SigningError) as error:
        raise TrustError(f"{role}: its signatures cannot be checked: {error}") from error


def _check_whole(offered: Offered, after: Standing) -> None:
    for role in after.roles:
        if role not in offered and not verification(role, after):
            raise TrustError(
                f"{role} as it stands is not signed by the keys that would be in force",
                "offer it in the same proposal, signed anew",
            )
