"""A real MLflow server, MLflow's own client and its webhook, and a real `edgeloop serve`: an alias
is moved in the registry, and the controller rolls the version out.

The server is mlflow-skinny's `mlflow server` with SQLite and artifacts that it serves itself.
"""

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeloop.client import Client
from edgeloop.errors import ApiError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

if importlib.util.find_spec("mlflow") is None:
    if os.environ.get("CI"):
        raise pytest.UsageError("mlflow-skinny is not installed, and CI must run its test")
    pytest.skip("mlflow-skinny is not installed", allow_module_level=True)

SECRET = "0123456789abcdef0123456789abcdef"
START_TIMEOUT_S = 90.0
SERVER = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
    # It sends webhooks to https and public addresses only, unless it is told otherwise.
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
}

# Run apart, as a user's training script is: mlflow would stay in the tests' own process.
LOGGING = """
import sys
from pathlib import Path

import mlflow, mlflow.onnx, mlflow.sklearn, numpy, onnx
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from sklearn.linear_model import LogisticRegression

directory, webhook, secret = Path(sys.argv[1]), *sys.argv[2:]
requirements = {"pip_requirements": ["onnx"]}  # to find them out by itself, it loads the model
client = mlflow.MlflowClient()
client.create_webhook(
    name="edgeloop",
    url=webhook,
    events=[WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)],
    secret=secret,
)
with mlflow.start_run():
    for number in "12":
        mlflow.onnx.log_model(
            onnx.load(directory / f"{number}.onnx"),
            name="model",
            registered_model_name="watch",
            extra_files=[str(directory / "model.toml")],
            **requirements,
        )
    mlflow.onnx.log_model(
        onnx.load(directory / "large.onnx"),
        name="large",
        registered_model_name="large",
        **requirements,
    )
    forest = LogisticRegression().fit(numpy.eye(2), [0, 1])
    mlflow.sklearn.log_model(
        forest,
        name="pickled",
        registered_model_name="pickled",
        serialization_format="cloudpickle",
        **requirements,
    )
client.set_registered_model_alias("watch", "champion", "1")
"""


@contextmanager
def running(
    command: list[str], log: Path, wait_until: Any, url: str, **environment: str
) -> Iterator[None]:
    """Until `url` answers; its output is shown where that fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(url) or process.poll() is not None, START_TIMEOUT_S, url)
        assert process.poll() is None, log.read_text()
        yield
    except BaseException:
        print(log.read_text()[-5000:])
        raise
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def configured(directory: Path, mlflow: str, http_port: int, broker_port: int) -> Path:
    (directory / "secret").write_text(SECRET)
    path = directory / "controller.toml"
    path.write_text(f"""
data_dir = "{directory / "data"}"
[http]
port = {http_port}
[broker]
embedded = true
port = {broker_port}
[mlflow]
tracking_uri = "{mlflow}"
webhook_secret_file = "{directory / "secret"}"
poll_s = 600
[mlflow.follow.lab]
model = "watch"
alias = "champion"
rollout = true
selector = "site=lab"
""")
    return path


def test_an_alias_that_moves_starts_a_rollout(
    tmp_path: Path,
    make_package: Any,
    free_port: Callable[[], int],
    wait_until: Callable[..., None],
) -> None:
    ports = [free_port() for _ in range(3)]
    mlflow_url, edgeloop_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
    for number in "12":
        package = make_package(weights=[[float(number), -1.0], [0.5, 0.5], [-1.0, 1.0]])
        (tmp_path / f"{number}.onnx").write_bytes(package.model)
    wide = [[0.1] * 500] * 3  # 6 KB: MLflow writes what is above 1 KB into a file of its own
    (tmp_path / "large.onnx").write_bytes(make_package(weights=wide, golden=None).model)
    (tmp_path / "model.toml").write_text('labels = ["left", "right"]\n')
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    server += ["--port", str(ports[0]), "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    server += ["--artifacts-destination", str(tmp_path / "artifacts")]
    config = configured(tmp_path, mlflow_url, ports[1], ports[2])
    controller = [sys.executable, "-m", "edgeloop_controller.cli.main", "serve"]
    controller += ["--config", str(config)]
    health = f"{edgeloop_url}/v1/health"
    with running(server, tmp_path / "mlflow.log", wait_until, f"{mlflow_url}/health", **SERVER):
        log_models(tmp_path, mlflow_url, f"{edgeloop_url}/v1/mlflow/webhook")
        with (
            running(controller, tmp_path / "edgeloop.log", wait_until, health),
            Client(edgeloop_url) as client,
        ):
            rolled_out_by_a_look(client, wait_until)
            move_alias(mlflow_url, "2")
            rolled_out_by_the_webhook(client, wait_until)
            published_by_hand(client)
            refused_with_the_mend(client)


def log_models(directory: Path, mlflow: str, webhook: str) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": mlflow,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NO_PROXY": "127.0.0.1",
    }
    logged = subprocess.run(
        [sys.executable, "-c", LOGGING, str(directory), webhook, SECRET],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert logged.returncode == 0, logged.stderr


def move_alias(mlflow: str, version: str) -> None:
    moved = httpx.post(
        f"{mlflow}/api/2.0/mlflow/registered-models/alias",
        json={"name": "watch", "alias": "champion", "version": version},
        trust_env=False,
    )
    assert moved.is_success, moved.text


def rolled_out(client: Client) -> list[tuple[str, str]]:
    items = client.get("/rollouts")["items"]
    return [(f"{one['name']}@{one['version']}", one["status"]) for one in items[::-1]]


def rolled_out_by_a_look(client: Client, wait_until: Any) -> None:
    wait_until(lambda: rolled_out(client) == [("watch@1", "running")], 30, "rollout of watch@1")


def rolled_out_by_the_webhook(client: Client, wait_until: Any) -> None:
    both = [("watch@1", "running"), ("watch@2", "queued")]
    wait_until(lambda: rolled_out(client) == both, 30, "rollout of watch@2")
    moved = client.get("/events", kind="mlflow.")["items"][-1]
    assert (moved["kind"], moved["data"]["published"]) == ("mlflow.alias_moved", "watch@2")
    delivery = moved["data"]["delivery"]
    assert delivery  # the next look by the clock is ten minutes away
    entries = client.get("/audit", actor="mlflow")["items"]
    made = [one["created"] for one in entries if one["essence"].get("delivery") == delivery]
    assert made == ["", "version:watch@2", "rollout:2"]


def published_by_hand(client: Client) -> None:
    again = client.post("/mlflow/publish", {"uri": "models:/watch@champion"})
    assert (again["version"], again["created"]) == ("2", False)
    assert again["manifest"]["labels"] == ["left", "right"]
    lineage = client.get("/models/watch/versions/2/lineage")["chain"][1]
    assert lineage["kind"] == "mlflow"
    assert lineage["document"]["run_id"]
    large = client.post("/mlflow/publish", {"uri": "models:/large/1"})  # its weights are beside it
    assert large["manifest"]["artifact"]["size_bytes"] > 6_000


def refused_with_the_mend(client: Client) -> None:
    for uri, why, mend in (
        ("models:/pickled/1", "flavour sklearn", "skl2onnx"),
        ("models:/watch/3", "MLflow has no models:/watch/3", "NAME@ALIAS"),
        ("models:/watch@nobody", "MLflow has no models:/watch@nobody", "NAME@ALIAS"),
    ):
        with pytest.raises(ApiError) as refused:
            client.post("/mlflow/publish", {"uri": uri})
        assert why in str(refused.value), json.dumps(str(refused.value))
        assert mend in refused.value.hint
