"""Who may do what: request → permission, role → permissions, each one table (ADR 0030).

Invariants: what no row names is for admins; every role may read. A test holds REQUESTS to the
routes of the API.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    READ = "read"
    OPERATE = "operate"
    PUBLISH = "publish"
    APPROVE = "approve"
    ADMINISTER = "administer"


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    APPROVER = "approver"
    ADMIN = "admin"


PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
    Role.PUBLISHER: frozenset({Permission.READ, Permission.PUBLISH}),
    Role.APPROVER: frozenset({Permission.READ, Permission.APPROVE}),
    Role.ADMIN: frozenset(Permission),
}

READING: Final = ("GET", "HEAD", "OPTIONS")
CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")

OPEN: Final = (
    (READING, r"/v1/health"),
    (READING, r"/v1/artifacts/[^/]+"),
    (READING, r"/v1/trust/metadata/[^/]+"),
    (("POST",), r"/v1/mlflow/webhook"),
    (("POST",), r"/v1/enrolments(/renewals|/confirmations)?"),
    (READING, r"/v1/enrolments/authority"),
)
"""For anybody: found by a digest, signed by itself, or the door at which one becomes known."""

REQUESTS: Final = (
    (READING, r"/v1/tokens(/.*)?", Permission.ADMINISTER),
    (READING, r"/v1/.*", Permission.READ),
    (("POST",), r"/v1/rollouts/plan", Permission.READ),
    (("POST",), r"/v1/rollouts/[^/]+/approve", Permission.APPROVE),
    (("POST",), r"/v1/rollouts(/.*)?", Permission.OPERATE),
    (("POST",), r"/v1/challengers(/.*)?", Permission.OPERATE),
    (("POST",), r"/v1/labels", Permission.OPERATE),
    (("PATCH",), r"/v1/devices/[^/]+/labels", Permission.OPERATE),
    (("PUT",), r"/v1/devices/[^/]+/quarantine", Permission.OPERATE),
    (("POST",), r"/v1/devices/[^/]+/(diagnosis|revocation|rotation)", Permission.OPERATE),
    (("PUT",), r"/v1/enrolments/[^/]+/decision", Permission.OPERATE),
    (("POST", "DELETE"), r"/v1/enrolment-tokens(/.*)?", Permission.OPERATE),
    (("POST",), r"/v1/retraining/policies/[^/]+/runs", Permission.OPERATE),
    (("PUT", "DELETE"), r"/v1/retraining/policies/[^/]+", Permission.PUBLISH),
    (("POST",), r"/v1/models/[^/]+/versions/[^/]+", Permission.PUBLISH),
    (("POST",), r"/v1/mlflow/publish", Permission.PUBLISH),
    (("PUT", "POST"), r"/v1/trust/metadata(/.*)?", Permission.PUBLISH),
    (("DELETE",), r"/v1/trust/waiting/[^/]+", Permission.PUBLISH),
    (("POST",), r"/v1/trust/keys", Permission.ADMINISTER),
    (CHANGING, r"/v1/tokens(/.*)?", Permission.ADMINISTER),
)
"""The first row that fits counts."""

_OPEN: Final = tuple((methods, re.compile(path)) for methods, path in OPEN)
_REQUESTS: Final = tuple(
    (methods, re.compile(path), permission) for methods, path, permission in REQUESTS
)


@dataclass(frozen=True)
class Caller:
    """Who asks. `name` is unique among callers of all kinds."""

    name: str
    roles: frozenset[Role]
    authenticated: bool = True

    def may(self, permission: Permission) -> bool:
        return any(permission in PERMISSIONS[role] for role in self.roles)


ANYBODY: Final = Caller("", frozenset({Role.ADMIN}), authenticated=False)
"""Who asks where nobody has to say who they are."""


def is_open(method: str, path: str) -> bool:
    return any(method in methods and found.fullmatch(path) for methods, found in _OPEN)


def needed(method: str, path: str) -> Permission:
    for methods, found, permission in _REQUESTS:
        if method in methods and found.fullmatch(path):
            return permission
    return Permission.ADMINISTER


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """For the words of a refusal."""
    return tuple(role for role in Role if permission in PERMISSIONS[role])
