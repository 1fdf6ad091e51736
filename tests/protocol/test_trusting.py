"""A runner's classes without checks read and write what pydantic's do, each model and field."""

import inspect
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeloop_agent import config, runner_protocol
from edgeloop_protocol import manifest, messages

CHILD = Path(__file__).with_name("trusting_child.py")
structure = runpy.run_path(str(CHILD), run_name="child")["structure"]

DIGEST, OTHER = "0" * 64, "f" * 64
REF = {"name": "watch", "version": "1.2", "manifest_digest": DIGEST}
SHADOW = {"name": "watch", "version": "1.1", "manifest_digest": OTHER}
FILES = {"version": REF, "manifest_path": "/m/manifest.json", "model_path": "/m/model.onnx"}
BINNED = {"edges": [-1.0, 0.5], "shares": [0.25, 0.5, 0.25], "sketch": "c2tldGNo"}
TENSOR = {"name": "x", "dtype": "int8", "shape": [None, 2], "quantisation": None}
SCALE = {"scale": 0.5, "zero_point": -3}

TO_RUNNER = "edgeloop_agent.runner_protocol:decode_to_runner"
FROM_RUNNER = "edgeloop_agent.runner_protocol:decode_from_runner"
MANIFEST = "edgeloop_protocol.manifest:parse_manifest"
DRAFT = "edgeloop_protocol.manifest:ManifestDraft"
RUNTIME = "edgeloop_protocol.messages:RuntimeInfo"
AGENT = "edgeloop_agent.config:AgentConfig"

SOURCES = (
    {"kind": "replay", "path": "/s.npy", "window_rows": 5, "hop_rows": 2, "rate_hz": 3},
    {"kind": "socket", "path": "/run/s.sock"},
    {"kind": "open_inference", "port": 8001},
    {"kind": "open_inference", "path": "/run/infer.sock"},
    {"kind": "lines", "path": "/run/fifo"},
    {"kind": "mqtt", "topic": "t/x", "username": "u", "password": "p"},
    {"kind": "camera", "options": {"device": "/dev/video0", "sizes": [1, 2.5, None]}},
)
SINKS = (
    {"kind": "none"},
    {"kind": "jsonl", "path": "/var/answers.jsonl", "max_bytes": 1000},
    {"kind": "mqtt", "topic": "t/y", "host": "h", "port": 1884},
    {"kind": "lamp", "options": {}},
)
CAPTURE = {"reservoir_per_window": 3, "confidence_below": 0.5, "outside_margin": 0.1}
RUNNER = {"network": "host", "nice": 3, "cpus": [0, 1], "writable": ["/var/x", "/var/y"]}


def start(**changes: Any) -> dict[str, Any]:
    slot = {"source": SOURCES[0], "sink": {"kind": "none"}}
    return {"kind": "start", "slot": "main", "model": FILES, "config": slot, "telemetry": {}} | (
        changes
    )


FULL_MANIFEST = {
    "name": "watch",
    "version": "1.2",
    "description": "é",
    "artifact": {"digest": DIGEST, "size_bytes": 10, "runtime": "tflite", "operators": ["ADD"]},
    "inputs": [TENSOR | {"quantisation": SCALE}, TENSOR | {"name": "h", "quantisation": SCALE}],
    "outputs": [{"name": "h_out", "dtype": "int8", "shape": [None, 2], "quantisation": SCALE}],
    "scores_output": "h_out",
    "feeds": [{"input": "x", "features": ["a_mean", "b_mean"]}, {"input": "h", "constant": 0.5}],
    "preprocessing": {
        "kind": "window_statistics",
        "rows": 100,
        "channels": ["a", "b"],
        "statistics": ["mean"],
    },
    "features": [{"name": "a_mean", "sensor": "acc"}, {"name": "b_mean", "sensor": "acc"}],
    "labels": ["left", "right"],
    "requires": {"memory_bytes": 5, "disk_bytes": 6, "architectures": ["x86_64"]},
    "golden": {"inputs": [[0.0, 1.5]], "outputs": [[0.25, 0.75]], "tolerance": 0.01},
    "baseline": {
        "count": 5,
        "features": [BINNED, BINNED],
        "confidence": BINNED,
        "predictions": [0.5, 0.5],
        "thresholds": {"examples": 9, "device": 0.1, "fleet": 0.2, "sensor": 0.3},
    },
    "evaluation": {"examples": 4, "accuracy": 0.9, "against": SHADOW, "disagreement": 0.1},
    "lineage": {"parent": SHADOW, "training_run": "r1", "note": "n"},
}
PLAIN_MANIFEST = {
    key: FULL_MANIFEST[key] for key in ("name", "version", "artifact", "features", "labels")
} | {"inputs": [TENSOR], "outputs": [TENSOR], "scores_output": "x"}

WINDOW = {
    "kind": "window",
    "slot": "main",
    "version": REF,
    "started_at": 1.5,
    "ended_at": 11.5,
    "count": 7,
    "latency_p50_us": 3.25,
    "latency_p95_us": 1e-05,
    "predictions": [3, 4],
    "confidence": [1, 6],
    "features": [[1, 6], [7, 0]],
    "sketches": {"count": 7, "features": ["YQ==", "Yg=="], "confidence": "Yw=="},
    "comparison": {"shadow": SHADOW, "count": 7, "disagreements": 1},
}
SAMPLE = {
    "kind": "sample",
    "slot": "main",
    "version": REF,
    "taken_at": 2.5,
    "reference": 'rec 7 "quoted" é',
    "features": [0.5, None, 1e300],
    "prediction": 1,
    "confidence": 0.75,
    "shadow": SHADOW,
    "shadow_prediction": 0,
}
SHADOWED = {
    "kind": "shadow",
    "champion": REF,
    "window": WINDOW | {"version": SHADOW, "sketches": None, "comparison": None},
    "disagreements": 2,
    "skipped": 3,
    "cpu_s": 0.125,
}
CHALLENGER = {
    "kind": "start_challenger",
    "slot": "main",
    "model": FILES,
    "budget": {"cpu_fraction": 1, "memory_bytes": 7},
    "runner": RUNNER,
    "telemetry": {"window_s": 2},
}
BEAT = {"kind": "heartbeat", "examples": 5, "latency_p95_us": 2.5, "shadow_varied": True}

VALID: list[tuple[str, dict[str, Any]]] = [
    *((TO_RUNNER, start(config={"source": source})) for source in SOURCES),
    *((TO_RUNNER, start(config={"source": SOURCES[0], "sink": sink})) for sink in SINKS),
    (TO_RUNNER, start(config={"source": SOURCES[1], "sink": {"kind": "socket"}})),
    (TO_RUNNER, start(config={"source": SOURCES[0], "capture": CAPTURE, "runner": RUNNER})),
    (TO_RUNNER, start(shadow=FILES | {"version": SHADOW}, memory_max_bytes=5)),
    (TO_RUNNER, start(endpoint={"feed": 4, "hand_over": 5, "take_over": 6})),
    (TO_RUNNER, start(telemetry={"window_s": 2, "private_features": ["a", "b"]})),
    (TO_RUNNER, CHALLENGER),
    (TO_RUNNER, {"kind": "mirror", "champion": REF}),
    (TO_RUNNER, {"kind": "capture", "examples": 5}),
    *((TO_RUNNER, {"kind": kind}) for kind in ("go", "drop_shadow", "stop")),
    (TO_RUNNER, {"kind": "capture", "examples": 5}),
    (FROM_RUNNER, {"kind": "confined", "done": ["a"], "lacking": ["b", "c"]}),
    (FROM_RUNNER, {"kind": "self_tested", "passed": False, "detail": "nan"}),
    (FROM_RUNNER, {"kind": "serving"}),
    *((FROM_RUNNER, document) for document in (BEAT, WINDOW, SAMPLE, SHADOWED)),
    (FROM_RUNNER, {"kind": "event", "at": 1.0, "name": "no_answer", "version": REF}),
    (MANIFEST, FULL_MANIFEST),
    (MANIFEST, PLAIN_MANIFEST),
    (DRAFT, {"labels": ["a"], "sensors": {"x": "y"}, "inputs": [TENSOR]}),
    (RUNTIME, {"name": "onnx", "version": "1.32", "max_opset": 23}),
]
BROKEN: list[tuple[str, Any, str]] = [
    (TO_RUNNER, {"kind": "dance"}, "RunnerLineError"),
    (TO_RUNNER, {}, "RunnerLineError"),
    (TO_RUNNER, [], "RunnerLineError"),
    (TO_RUNNER, {"kind": "start", "slot": "main"}, "RunnerLineError"),
    (TO_RUNNER, start(model=5), "RunnerLineError"),
    (MANIFEST, {"name": "watch"}, "ManifestError"),
    (MANIFEST, PLAIN_MANIFEST | {"inputs": [3]}, "ManifestError"),
]


@pytest.fixture(scope="module")
def trusted() -> list[dict[str, str]]:
    """What the child says of the valid documents, then of the broken ones."""
    lines = [f"{where} {json.dumps(document)}" for where, document in VALID]
    lines += [f"{where} {json.dumps(document)}" for where, document, _ in BROKEN]
    lines.append(f"{TO_RUNNER} no JSON")
    done = subprocess.run(
        [sys.executable, CHILD],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_pydantic(where: str, document: dict[str, Any]) -> Any:
    return runpy.run_path(str(CHILD), run_name="child")["read"](where, json.dumps(document))


def test_each_document_is_read_and_written_as_by_pydantic(trusted: list[dict[str, str]]) -> None:
    for (where, document), said in zip(VALID, trusted, strict=False):
        expected = by_pydantic(where, document)
        assert said.get("structure") == repr(structure(expected)), document
        assert json.loads(said["json"]) == json.loads(expected.model_dump_json()), document


def test_what_cannot_be_read_is_an_error_of_ours(trusted: list[dict[str, str]]) -> None:
    wanted = [error for _, _, error in BROKEN] + ["RunnerLineError"]
    assert [said.get("error") for said in trusted[len(VALID) :]] == wanted


def test_every_model_that_a_runner_meets_is_among_them() -> None:
    """A new one is held to this too."""
    met = "".join(repr(structure(by_pydantic(*one))) for one in VALID)
    meets = {
        *models_of(runner_protocol),
        *models_of(manifest),
        *(config.SlotConfig, config.TelemetryConfig, config.RunnerConfig, config.CaptureConfig),
        *(config.ReplaySource, config.SocketSource, config.OpenInferenceSource),
        *(config.LinesSource, config.MqttTopic, config.PlugInSource, config.PlugInSink),
        *(config.NoSink, config.JsonlSink, config.SocketSink),
        *(messages.VersionRef, messages.RuntimeInfo, messages.WindowSummary, messages.Sample),
        *(messages.Sketches, messages.Comparison, messages.DeviceEvent),
        *(messages.ShadowSummary, messages.ShadowBudget),
    } - {runner_protocol.Line, manifest.Strict, manifest.WithLaterKeys}
    assert not [model for model in meets if f"'{model.__name__}'" not in met]


def models_of(module: Any) -> set[type]:
    return {
        one
        for _, one in inspect.getmembers(module, inspect.isclass)
        if one.__module__ == module.__name__ and hasattr(one, "model_fields")
    }
