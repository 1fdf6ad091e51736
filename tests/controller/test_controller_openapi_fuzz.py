"""schemathesis over the API's own description: whatever is sent, the controller does not fail.

`EDGELOOP_FUZZ_EXAMPLES=1000` asks more of each operation than a test run has time for.
"""

import os
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig

EXAMPLES: Final = int(os.environ.get("EDGELOOP_FUZZ_EXAMPLES", "5"))
ALLOWED: Final = frozenset({502, 503, 504})
"""Of others that are away: the broker, MLflow, a device that does not answer."""


@pytest.fixture
def config(config: ControllerConfig) -> ControllerConfig:
    changes = {
        "limits": {"requests_per_s": 1e6, "requests_burst": 1_000_000},
        "access": {"require": True},
    }
    return ControllerConfig.model_validate(config.model_dump() | changes)


@pytest.mark.timeout(60 * max(1, EXAMPLES // 5))
def test_nothing_that_is_sent_makes_it_fail(
    controller: Any, make_device: Any, make_package: Any
) -> None:
    controller.keep(make_package("1"))
    controller.takes(make_device("d1", labels={"site": "lab"}).hello())
    _, secret = controller.parts.services.people.create("fuzz", ["admin"], None, "test")
    headers = {"authorization": f"Bearer {secret}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(controller.parts.services))
    statuses: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        seen = statuses.setdefault(operation.label, set())
        fuzz(operation, headers, seen)
    assert len(statuses) > 40
    answered = set[int]().union(*statuses.values())
    assert {200, 404, 422} <= answered, "some of it gets through, and some does not"


def fuzz(operation: Any, headers: dict[str, str], seen: set[int]) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        response = case.call(headers=headers)
        assert response.status_code < 500 or response.status_code in ALLOWED, response.text
        seen.add(response.status_code)

    ask()
