"""A fleet of the client's over the real application, in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from controller_bench import Controller, FakeDevice, make_controller, tiny_model
from fastapi.testclient import TestClient

from edgeloop import Fleet
from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig, RetrainingConfig
from edgeloop_controller.store.engine import Database


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    (tmp_path / "policies").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    retraining = RetrainingConfig(policies_dir=tmp_path / "policies")
    yield make_controller(database, ControllerConfig(data_dir=tmp_path, retraining=retraining))
    database.close()


@pytest.fixture
def fleet(controller: Controller) -> Iterator[Fleet]:
    # A TestClient is an httpx client; its transport is the application.
    transport = TestClient(create_app(controller.parts.services))._transport
    with Fleet("http://localhost", actor="ada", transport=transport) as fleet:
        yield fleet


@pytest.fixture
def make_device() -> Callable[..., FakeDevice]:
    return FakeDevice


@pytest.fixture(name="tiny_model")
def tiny_model_fixture() -> Callable[..., Any]:
    return tiny_model
