"""The tables of who may do what, held to the API's routes."""

import re

import pytest

from edgeloop_controller.api.app import ROUTES
from edgeloop_controller.core.access import (
    ANYBODY,
    CHANGING,
    OPEN,
    PERMISSIONS,
    REQUESTS,
    Caller,
    Permission,
    Role,
    is_open,
    needed,
)

CHANGES = sorted(
    (method, f"/v1{route.path}")
    for module in ROUTES
    for route in module.router.routes
    for method in route.methods
    if method in CHANGING
)


def example(path: str) -> str:
    return re.sub(r"{[^}]+}", "x", path)


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_every_change_has_a_row_of_its_own(method: str, path: str) -> None:
    """What has none is for admins: safe, and rarely meant."""
    path = example(path)
    rows = [row for row in REQUESTS if method in row[0] and re.fullmatch(row[1], path)]
    assert rows or is_open(method, path), "add a row to core.access.REQUESTS"


@pytest.mark.parametrize("row", REQUESTS + OPEN)
def test_every_row_is_of_a_route(row: tuple[object, ...]) -> None:
    pattern = str(row[1])
    paths = [example(f"/v1{route.path}") for module in ROUTES for route in module.router.routes]
    assert any(re.fullmatch(pattern, path) for path in paths)


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/v1/devices", Permission.READ),
        ("GET", "/v1/tokens", Permission.ADMINISTER),
        ("POST", "/v1/rollouts", Permission.OPERATE),
        ("POST", "/v1/rollouts/plan", Permission.READ),
        ("POST", "/v1/rollouts/4/approve", Permission.APPROVE),
        ("POST", "/v1/rollouts/4/approve/", Permission.OPERATE),
        ("POST", "/v1/models/a/versions/1", Permission.PUBLISH),
        ("DELETE", "/v1/tokens/ann", Permission.ADMINISTER),
        ("POST", "/v1/of-tomorrow", Permission.ADMINISTER),
        ("TRACE", "/v1/devices", Permission.ADMINISTER),
        ("GET", "/v1/devices\n", Permission.ADMINISTER),
    ],
)
def test_what_a_request_needs(method: str, path: str, permission: Permission) -> None:
    assert needed(method, path) is permission


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/artifacts/x"),
        ("GET", "/v1/artifacts/../tokens"),
        ("GET", "/v1/artifacts/x/y"),
        ("GET", "/v1/mlflow/webhook"),
        ("POST", "/v1/mlflow/publish"),
        ("GET", "/v1/healthy"),
        ("GET", "/v1/trust"),
    ],
)
def test_what_lies_beside_an_open_door_is_shut(method: str, path: str) -> None:
    assert not is_open(method, path)


def test_only_admins_administer_and_everybody_reads() -> None:
    for role, permissions in PERMISSIONS.items():
        assert Permission.READ in permissions
        assert (Permission.ADMINISTER in permissions) == (role is Role.ADMIN)


def test_roles_add_up() -> None:
    both = Caller("ci", frozenset({Role.OPERATOR, Role.PUBLISHER}))
    assert both.may(Permission.OPERATE)
    assert both.may(Permission.PUBLISH)
    assert not both.may(Permission.APPROVE)
    assert not Caller("nobody", frozenset()).may(Permission.READ)
    assert not ANYBODY.authenticated
