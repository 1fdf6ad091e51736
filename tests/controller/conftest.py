"""Fixtures of the controller's shell: a real database, a broker that remembers, tiny models."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from controller_bench import (
    DRAFT,
    Controller,
    FakeDevice,
    answers,
    baseline_parquet,
    make_controller,
    telemetry,
    tiny_model,
)
from typer.testing import CliRunner

from edgeloop_controller.api.app import create_app
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.main import app
from edgeloop_controller.cli.output import WIDTH
from edgeloop_controller.config import ControllerConfig, RetrainingConfig
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store.engine import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    yield database
    database.close()


@pytest.fixture
def config(tmp_path: Path) -> ControllerConfig:
    policies_dir, scripts_dir = tmp_path / "policies", tmp_path / "scripts"
    policies_dir.mkdir()
    scripts_dir.mkdir()
    return ControllerConfig(
        data_dir=tmp_path,
        retraining=RetrainingConfig(policies_dir=policies_dir, scripts_dir=scripts_dir),
    )


@pytest.fixture
def controller(database: Database, config: ControllerConfig) -> Controller:
    return make_controller(database, config)


@pytest.fixture
def make_device() -> Callable[..., FakeDevice]:
    return FakeDevice


@pytest.fixture(name="telemetry")
def telemetry_fixture() -> Callable[..., Inbound]:
    return telemetry


@pytest.fixture(name="tiny_model")
def tiny_model_fixture() -> Callable[..., bytes]:
    return tiny_model


@pytest.fixture(name="baseline_parquet")
def baseline_parquet_fixture() -> Callable[..., bytes]:
    return baseline_parquet


@pytest.fixture(name="answers")
def answers_fixture() -> Callable[..., Any]:
    return answers


@pytest.fixture
def draft_toml() -> str:
    return DRAFT


@pytest.fixture
def url(controller: Any, free_port: Any, wait_until: Any) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(create_app(controller.parts.services), port=port, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


class Cli:
    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, *arguments: str, code: ExitCode = ExitCode.OK) -> Any:
        result = CliRunner().invoke(app, ["--url", self._url, *arguments])
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def table(self, *arguments: str) -> str:
        text: str = self.run(*arguments).stdout
        assert max(len(line) for line in text.splitlines()) <= WIDTH
        return text

    def refused(self, code: ExitCode, *arguments: str) -> str:
        result = self.run(*arguments, code=code)
        assert result.stdout == ""
        assert "error:" in result.stderr
        assert "Traceback" not in result.stderr
        return str(result.stderr)


@pytest.fixture
def cli(url: str) -> Cli:
    return Cli(url)


@pytest.fixture
def make_cli() -> Callable[[str], Cli]:
    return Cli
