"""What people change: a draft of the next metadata (its signatures: `trust.signing`).

Invariants: pure; a role that is edited grows by one, once, and loses its signatures; `settle`
makes the draft whole: what a change of keys leaves unsigned is in it too.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Role,
    Root,
    TargetFile,
    Targets,
)

from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import (
    ONLINE,
    ROOT,
    TARGETS,
    Standing,
    all_releases,
    is_model_role,
    releases_of,
)
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.signed_release import (
    PARTS,
    SHA256,
    SignedRelease,
    target_name,
    target_pattern,
)


@dataclass(frozen=True)
class Expiries:
    """For how long what people sign holds."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=90)


@dataclass(frozen=True)
class Holders:
    """Of a role in a first root."""

    keys: Sequence[Key]
    threshold: int


def first(
    root: Holders, targets: Holders, online: Mapping[str, Key], now: datetime, lives: Expiries
) -> dict[str, Metadata[Any]]:
    """Root and targets, version 1, to be signed. `online`: role → its key."""
    signed = Root(version=1, expires=now + lives.root)
    for role, holders in ((ROOT, root), (TARGETS, targets)):
        for key in holders.keys:
            signed.add_key(key, role)
        signed.roles[role].threshold = holders.threshold
    for role in ONLINE:
        signed.add_key(online[role], role)
    empty = Targets(version=1, expires=now + lives.targets)
    return {ROOT: Metadata(signed), TARGETS: Metadata(empty)}


class Draft:
    """The next metadata, on top of what stands. `changed`: by role, without signatures."""

    def __init__(self, standing: Standing, now: datetime, lives: Expiries) -> None:
        self.standing = standing
        self.changed: dict[str, Metadata[Any]] = {}
        self._now = now
        self._lives = lives
        self._listed_by: dict[tuple[str, str], str] | None = None

    # ---- roles and keys -------------------------------------------------------------------------

    def keyids(self, role: str) -> list[str]:
        """Of the keys that may sign a role, as drafted. Raises TrustError for no such role."""
        return list(self._role(role).keyids)

    def add_key(self, role: str, key: Key, threshold: int | None = None) -> None:
        """To root, targets, or a model's role, which is delegated to if it is not yet."""
        held = self._role(role, or_delegate=True)
        if key.keyid in held.keyids:
            raise TrustError(f"{role} has this key already: {key.keyid[:12]}")
        if role in (ROOT, TARGETS):
            self._root().add_key(key, role)
        else:
            self._targets().add_key(key, role)
        self._set_threshold(role, threshold)

    def revoke_key(self, role: str, keyid: str, threshold: int | None = None) -> None:
        """The role's last key cannot be taken away: rotate it."""
        held = self._role(role)
        if keyid not in held.keyids:
            raise TrustError(
                f"{role} has no key {keyid[:12]}", "`edgeloop trust status` shows them"
            )
        left = len(held.keyids) - 1
        if left < (threshold or held.threshold):
            raise TrustError(
                f"{role} asks for {threshold or held.threshold} signatures, and would have "
                f"{left} keys",
                "add a key first, or give a lower --threshold",
            )
        if role in (ROOT, TARGETS):
            self._root().revoke_key(keyid, role)
        else:
            self._targets().revoke_key(keyid, role)
        self._set_threshold(role, threshold)

    def replace_online(self, keys: Mapping[str, Key]) -> None:
        root = self._root()
        for role, key in keys.items():
            for keyid in tuple(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            root.add_key(key, role)

    def renew(self, role: str) -> None:
        """A new expiry; nothing else."""
        self._edit(role)

    def settle(self) -> None:
        """Take in every role that its delegator, as drafted, would not verify any more."""
        for role in (TARGETS, *self.standing.roles):
            if role in self.changed or role not in self.standing.roles:
                continue
            metadata = self.standing.roles[role].metadata
            delegator = self._now_root() if role == TARGETS else self._now_targets()
            if role != TARGETS and role not in delegated_roles(self._now_targets()):
                continue
            try:
                delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError:
                self._edit(role)

    # ---- releases -------------------------------------------------------------------------------

    def role_of(self, model: str) -> str:
        """Which role signs a model: its own, where there is one."""
        return model if model in delegated_roles(self._now_targets()) else TARGETS

    def releases(self, model: str) -> dict[str, SignedRelease]:
        """Of one model, by version, as they stand."""
        found = all_releases(self.standing.roles.values())
        return {version: one for (name, version), one in found.items() if name == model}

    def put(self, release: SignedRelease, sizes: tuple[int, int]) -> None:
        """Sign a version, or sign it anew; `sizes`: bytes of manifest and artifact."""
        key = release.model, release.version
        listed = self._find(*key)
        targets = self._edit(listed or self.role_of(release.model))
        for part, size in zip(PARTS, sizes, strict=True):
            name = target_name(*key, part)
            fields = {"custom": release.custom()}
            hashes = {SHA256: release.sha256_of(part)}
            targets.targets[name] = TargetFile(size, hashes, name, fields)

    def withdraw(self, model: str, version: str) -> None:
        """Sign it no more. Devices that run it go on, and none goes below it by itself."""
        role = self._listed_in(model, version)
        targets = self._edit(role)
        for part in PARTS:
            del targets.targets[target_name(model, version, part)]

    def allow_rollback(self, model: str, version: str) -> list[SignedRelease]:
        """Let devices back to `version` from every later release; those that changed."""
        releases = self.releases(model)
        if version not in releases:
            raise TrustError(
                f"{model}@{version} is not signed", "`edgeloop trust status` shows all"
            )
        to = releases[version].release
        lowered = [
            one.model_copy(update={"rollback_floor": to})
            for one in releases.values()
            if one.release > to and one.rollback_floor > to
        ]
        for release in lowered:
            self.put(release, self._sizes(release))
        return lowered

    def _sizes(self, release: SignedRelease) -> tuple[int, int]:
        targets = self.standing.roles[self._listed_in(release.model, release.version)].signed
        manifest, artifact = (target_name(release.model, release.version, part) for part in PARTS)
        return targets.targets[manifest].length, targets.targets[artifact].length

    def _listed_in(self, model: str, version: str) -> str:
        role = self._find(model, version)
        if role is None:
            raise TrustError(
                f"{model}@{version} is not signed", "`edgeloop trust status` shows all"
            )
        return role

    def _find(self, model: str, version: str) -> str | None:
        """The role that signs a version, as it stands; all are read once."""
        if self._listed_by is None:
            roles = self.standing.roles.items()
            self._listed_by = {key: role for role, one in roles for key in releases_of(one)}
        return self._listed_by.get((model, version))

    # ---- small steps ----------------------------------------------------------------------------

    def _root(self) -> Root:
        signed: Root = self._edit(ROOT)
        return signed

    def _targets(self) -> Targets:
        signed: Targets = self._edit(TARGETS)
        return signed

    def _now_root(self) -> Root:
        return self.changed[ROOT].signed if ROOT in self.changed else self.standing.root.signed

    def _now_targets(self) -> Targets:
        changed = self.changed.get(TARGETS)
        return changed.signed if changed else self.standing.targets.signed

    def _edit(self, role: str) -> Any:
        """The role's signed part, grown by one when it is edited first."""
        if role not in self.changed:
            life = self._lives.root if role == ROOT else self._lives.targets
            stands = self.standing.root if role == ROOT else self.standing.roles.get(role)
            if stands is None:
                self._role(role)
                self.changed[role] = Metadata(Targets(version=1, expires=self._now + life))
            else:
                signed = deepcopy(stands.signed)
                signed.version += 1
                signed.expires = self._now + life
                self.changed[role] = Metadata(signed)
        return self.changed[role].signed

    def _role(self, role: str, or_delegate: bool = False) -> Role:
        """Raises TrustError for a role that keys of people cannot be of."""
        if role in (ROOT, TARGETS):
            return self._now_root().roles[role]
        if role not in delegated_roles(self._now_targets()):
            if not or_delegate or not is_model_role(role):
                raise TrustError(
                    f"there is no role {role!r}", "root, targets, or a model with keys of its own"
                )
            self._delegate(role)
        return delegated_roles(self._now_targets())[role]

    def _delegate(self, model: str) -> None:
        """Versions that targets signed so far stay there."""
        targets = self._targets()
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        assert targets.delegations.roles is not None  # no hash bins: acceptance
        role = DelegatedRole(model, [], 1, terminating=True, paths=[target_pattern(model)])
        targets.delegations.roles[model] = role

    def _set_threshold(self, role: str, threshold: int | None) -> None:
        if threshold is not None:
            self._role(role).threshold = threshold


def _unsigned(model: str, version: str) -> TrustError:
    return TrustError(f"{model}@{version} is not signed", "`edgeloop trust status` shows what is")
