"""The `edgeloop` commands against a real HTTP server: documents, tables, errors and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeloop_controller.cli.exit_codes import MEANINGS, ExitCode
from edgeloop_controller.services.diagnosis import Answer
from edgeloop_protocol.messages import Ask


@pytest.fixture
def model_file(tmp_path: Path, tiny_model: Any, draft_toml: str, baseline_parquet: Any) -> Path:
    (tmp_path / "model.toml").write_text(draft_toml)
    (tmp_path / "baseline.parquet").write_bytes(baseline_parquet())
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model())
    return path


def _publish_arguments(model_file: Path, version: str = "1") -> list[str]:
    directory = model_file.parent
    arguments = ["model", "publish", str(model_file), "--name", "tiny", "--version", version]
    return [
        *arguments,
        "--manifest",
        str(directory / "model.toml"),
        "--baseline",
        str(directory / "baseline.parquet"),
    ]


def test_the_commands_of_a_working_day(
    cli: Any, controller: Any, make_device: Any, telemetry: Any, model_file: Path
) -> None:
    assert "no model is published" in cli.table("model", "list")
    assert "no device" in cli.table("device", "list")
    assert cli.json("rollout", "list") == {"items": []}
    assert "tiny@1 published" in cli.table(*_publish_arguments(model_file))
    assert cli.json(*_publish_arguments(model_file))["created"] is False
    assert cli.json("model", "list")["items"][0]["latest"] == "1"
    assert "tiny" in cli.table("model", "list")
    assert "1" in cli.table("model", "show", "tiny")
    shown = cli.json("model", "show", "tiny@1")
    assert shown["manifest"]["features"][0] == {"name": "ax", "sensor": "accelerometer"}
    assert "accelerometer, gyroscope" in cli.table("model", "show", "tiny@1")
    assert "tiny@1" in cli.table("lineage", "tiny@1")
    assert cli.json("lineage", "tiny@1")["chain"][0]["kind"] == "version"

    device = make_device("d1", labels={"site": "lab"})
    controller.takes(device.hello(), telemetry("d1", device.epoch, 1, 2))
    assert "site=lab" in cli.table("device", "list")
    assert cli.json("device", "label", "d1", "site=field", "spare=[bold]")["labels"] == {
        "site": "field",
        "spare": "[bold]",
    }
    assert "[bold]" in cli.table("device", "show", "d1")
    assert cli.json("device", "label", "d1", "site-", "spare-")["labels"] == {"site": "lab"}

    arguments = ["rollout", "start", "tiny@1", "--to", "site=lab", "--waves", "1,100%"]
    options = ["--soak", "0", "--min-compared", "0", "--probation-seconds", "2"]
    started = cli.json(*arguments, *options)
    assert started["terms"]["probation"]["min_s"] == 2
    assert "paused" in cli.table("rollout", "pause", "1")
    assert "goes on" in cli.table("rollout", "resume", "1")
    controller.parts.reconciler.tick()
    controller.takes(device.obeys(controller.broker.desired("d1")[-1]))
    controller.parts.reconciler.tick()
    assert "d1" in cli.table("rollout", "show", "1")
    assert "tiny@1" in cli.table("device", "list")
    assert cli.json("device", "show", "d1")["slots"][0]["champion"]["version"] == "1"
    assert "tiny@1" in cli.table("rollout", "list")
    assert "no scores yet" in cli.table("drift", "show")
    assert cli.json("drift", "show")["alarms"] == []
    assert "rollout.started" in cli.table("events")
    kinds = [e["kind"] for e in cli.json("events", "--kind", "rollout.*")["items"]]
    assert kinds[0] == "rollout.started"


def test_retraining_commands(cli: Any, controller: Any, tmp_path: Path) -> None:
    assert "no policy" in cli.table("retrain", "policies")
    script = tmp_path / "train.py"
    script.write_text("print('hello')")
    policy = tmp_path / "policies" / "again.toml"
    policy.write_text(f'name = "again"\nmodel = "tiny"\nscript = "{script}"\n')
    (tmp_path / "policies" / "bad.toml").write_text("nam = 1")
    assert "cannot be used" in cli.table("retrain", "policies")
    cli.refused(ExitCode.NOT_FOUND, "retrain", "run", "again")  # no such model yet
    controller.publish("1")
    assert cli.json("retrain", "run", "again")["status"] == "pending"
    cli.refused(ExitCode.CONFLICT, "retrain", "run", "again")
    controller.parts.training_runs.work()
    assert "again" in cli.table("retrain", "list")
    assert cli.json("retrain", "show", "1")["status"] == "failed"
    assert "label more" in cli.table("retrain", "show", "1")
    assert cli.run("retrain", "show", "1", "--log").stdout == ""
    assert cli.json("retrain", "policies")["items"][0]["name"] == "again"
    cli.refused(ExitCode.NOT_FOUND, "retrain", "show", "7")
    cli.refused(ExitCode.NOT_FOUND, "retrain", "run", "none")


def test_errors_have_words_and_codes(
    cli: Any, controller: Any, make_device: Any, model_file: Path, tiny_model: Any
) -> None:
    cli.run(*_publish_arguments(model_file))
    controller.takes(make_device("d1").hello())
    refused = cli.refused
    start = ("rollout", "start", "tiny@1", "--to")
    assert "no device 'd9'" in refused(ExitCode.NOT_FOUND, "device", "show", "d9")
    refused(ExitCode.NOT_FOUND, "device", "label", "d9", "a=b")
    slash = ("model", "publish", str(model_file), "--name", "a/b", "--version", "1")
    assert "'a/b' cannot be a name" in refused(ExitCode.USAGE, *slash)
    refused(ExitCode.NOT_FOUND, "model", "show", "none")
    refused(ExitCode.NOT_FOUND, "model", "show", "tiny@9")
    refused(ExitCode.NOT_FOUND, "lineage", "tiny@9")
    refused(ExitCode.NOT_FOUND, "rollout", "start", "tiny@9", "--to", "all")
    assert "no device matches" in refused(ExitCode.NOT_FOUND, *start, "site=x")
    refused(ExitCode.NOT_FOUND, "rollout", "pause", "9")
    refused(ExitCode.REFUSED_INPUT, *start, "a==b")
    refused(ExitCode.REFUSED_INPUT, *start, "all", "--waves", "100%,1%")
    refused(ExitCode.REFUSED_INPUT, *start, "all", "--soak", "-1")
    refused(ExitCode.USAGE, "rollout", "start", "tiny", "--to", "all")
    refused(ExitCode.USAGE, "device", "label", "d1", "nonsense")
    refused(ExitCode.USAGE, "model", "publish", "/no/such.onnx", "--name", "n", "--version", "1")
    cli.run(*start, "site=x", "--allow-empty")
    cli.run(*start, "all")
    refused(ExitCode.CONFLICT, *start, "all")
    model_file.write_bytes(tiny_model(1))
    assert "immutable" in refused(ExitCode.CONFLICT, *_publish_arguments(model_file))
    model_file.write_bytes(b"no model")
    refused(ExitCode.REFUSED_INPUT, *_publish_arguments(model_file, "2"))


def test_without_a_controller(make_cli: Any, free_port: Any) -> None:
    text = make_cli(f"http://127.0.0.1:{free_port()}").refused(
        ExitCode.UNREACHABLE, "model", "list"
    )
    assert "edgeloop serve" in text
    make_cli("nonsense").refused(ExitCode.UNREACHABLE, "model", "list")


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_the_client_commands_import_nothing_of_the_server() -> None:
    code = (
        "import sys, edgeloop_controller.cli.main\n"
        "heavy = ('sqlalchemy', 'fastapi', 'numpy', 'onnxruntime', 'onnx', 'pyarrow', 'paho')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_events_are_followed_line_by_line(url: str, controller: Any, make_device: Any) -> None:
    controller.takes(make_device("d1").hello())
    command = [sys.executable, "-m", "edgeloop_controller.cli.main", "--url", url]
    with subprocess.Popen(
        [*command, "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "device.joined"
        controller.takes(make_device("d2").hello())
        assert json.loads(process.stdout.readline())["subject"] == "d2"
        process.terminate()


def test_a_device_is_asked_and_a_refusal_is_said(
    controller: Any, make_device: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.takes(make_device("d1").hello())
    service = controller.parts.services.diagnosis
    asked: list[Any] = []

    def ask(*arguments: Any) -> Answer:
        asked.append(arguments)
        return Answer(done=arguments[1] is Ask.LOGS, text="[bold]line[/]\n" * 2)

    monkeypatch.setattr(service, "ask", ask)
    assert cli.run("device", "diagnose", "d1", "logs", "--lines", "2").stdout.startswith("[bold]")
    assert cli.json("device", "diagnose", "d1", "logs")["done"] is True
    arguments = ("device", "diagnose", "d1", "restart-runner", "--slot", "main", "--timeout", "3")
    assert "d1: [bold]line" in cli.refused(ExitCode.CONFLICT, *arguments)
    assert asked[0] == ("d1", Ask.LOGS, None, 2, 15.0, 20)
    assert asked[-1] == ("d1", Ask.RESTART_RUNNER, "main", 200, 3.0, 20)
    cli.refused(
        ExitCode.CONFLICT,
        "device",
        "diagnose",
        "d1",
        "capture",
        "--slot",
        "main",
        "--examples",
        "7",
    )
    assert asked[-1] == ("d1", Ask.CAPTURE, "main", 200, 15.0, 7)


def test_a_device_that_does_not_answer_has_an_exit_code_of_its_own(
    controller: Any, make_device: Any, cli: Any
) -> None:
    controller.takes(make_device("d1").hello())
    arguments = ("device", "diagnose", "d1", "status", "--timeout", "0.05")
    assert "did not answer" in cli.refused(ExitCode.NO_ANSWER, *arguments)
