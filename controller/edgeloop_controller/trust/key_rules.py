"""Which keys may stand where.

No key stands twice in a role, by its id or by what it is; a threshold can be met; the online roles'
keys are those that the controller holds, and stand in no other role; a delegation covers one model,
to a role of its name.

Invariants: pure; raises nothing but TrustError.
"""

from collections.abc import Collection, Mapping
from typing import Final

from tuf.api.metadata import Key, Role, Root, Targets

from edgeloop_controller.trust.metadata import (
    DELEGATIONS_MAX,
    ONLINE,
    ROOT,
    TARGETS,
    is_model_role,
)
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.signed_release import target_pattern

KEY_TYPES: Final = frozenset({"ed25519", "ecdsa", "rsa"})
"""What `cryptography` alone verifies, so on every device."""
KEYS_MAX: Final = 32
"""Of one role."""


def delegated_roles(targets: Targets) -> Mapping[str, Role]:
    delegations = targets.delegations
    return (delegations.roles or {}) if delegations is not None else {}


def check_keys_of_root(root: Root, held: Collection[str]) -> None:
    if not root.consistent_snapshot:
        raise TrustError("root: consistent_snapshot must be true")
    for name, role in root.roles.items():
        _check_keys(name, role, root.keys)
    online = {public_value(root.keys[k]) for name in ONLINE for k in root.roles[name].keyids}
    for name in (ROOT, TARGETS):
        _check_offline(name, root.roles[name], root.keys, online)
    for name in ONLINE:
        if strange := [keyid for keyid in root.roles[name].keyids if keyid not in held]:
            raise TrustError(
                f"root: {name} has key {strange[0][:12]}, which this controller does not hold",
                "`edgeloop trust rotate online` has it make new ones",
            )


def check_delegations(targets: Targets, online: Collection[str]) -> None:
    delegations = targets.delegations
    if delegations is None:
        return
    if delegations.roles is None:
        raise TrustError("targets: hash bins (succinct roles) are not used here")
    if len(delegations.roles) > DELEGATIONS_MAX:
        raise TrustError(f"targets: more than {DELEGATIONS_MAX} delegations")
    for name, role in delegations.roles.items():
        if not is_model_role(name):
            raise TrustError(f"targets: {name!r} cannot be delegated to: it is no model's name")
        if role.paths != [target_pattern(name)] or not role.terminating:
            raise TrustError(
                f"targets: {name} must have the path {target_pattern(name)} only, and be "
                "terminating"
            )
        _check_keys(name, role, delegations.keys)
        _check_offline(name, role, delegations.keys, online)


def _check_keys(name: str, role: Role, keys: Mapping[str, Key]) -> None:
    if len(role.keyids) > KEYS_MAX:
        raise TrustError(f"{name}: more than {KEYS_MAX} keys")
    if missing := [keyid for keyid in role.keyids if keyid not in keys]:
        raise TrustError(f"{name}: key {missing[0][:12]} is named and not given")
    if odd := [keys[k].keytype for k in role.keyids if keys[k].keytype not in KEY_TYPES]:
        raise TrustError(f"{name}: a key of type {odd[0]}; use {', '.join(sorted(KEY_TYPES))}")
    if len({public_value(keys[keyid]) for keyid in role.keyids}) < len(role.keyids):
        raise TrustError(f"{name}: one key stands there twice, which would count as two signatures")
    if role.threshold > len(role.keyids):
        raise TrustError(
            f"{name}: {role.threshold} signatures are asked for, of {len(role.keyids)} keys"
        )


def _check_offline(name: str, role: Role, keys: Mapping[str, Key], online: Collection[str]) -> None:
    if any(public_value(keys[keyid]) in online for keyid in role.keyids):
        raise TrustError(f"{name}: a key that the controller holds online may not sign it")


def public_value(key: Key) -> str:
    return str(key.keyval.get("public", ""))
