"""The HTTP API: documents, errors, ranges and limits."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeloop_controller.api.app import create_app
from edgeloop_controller.api.openapi import openapi_text
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.composition import build
from edgeloop_controller.config import ControllerConfig, LimitsConfig
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store.engine import Database
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.messages import Record, Sample, TelemetryBatch, VersionRef, encode
from edgeloop_protocol.topics import Up, up_topic


@pytest.fixture
def api(controller: Any) -> Iterator[TestClient]:
    app = create_app(controller.parts.services)
    with TestClient(app, base_url="http://localhost/v1", raise_server_exceptions=False) as client:
        yield client


def _publish(
    api: TestClient, model: bytes, version: str = "1", draft: str = "", baseline: bytes = b""
) -> Any:
    files: dict[str, Any] = {"model": ("model.onnx", model)}
    if draft:
        files["manifest"] = ("model.toml", draft.encode())
    if baseline:
        files["baseline"] = ("baseline.parquet", baseline)
    return api.post(f"/models/tiny/versions/{version}", files=files)


def _error(response: Any, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code, error
    assert set(error) == {"code", "message", "hint"}
    return error


def test_publishing_the_same_again_changes_nothing(
    api: TestClient, tiny_model: Any, draft_toml: str, baseline_parquet: Any
) -> None:
    first = _publish(api, tiny_model(), draft=draft_toml, baseline=baseline_parquet())
    assert first.status_code == 201, first.text
    assert first.json()["created"] is True
    again = _publish(api, tiny_model(), draft=draft_toml, baseline=baseline_parquet())
    assert again.status_code == 200, again.text
    assert again.json()["created"] is False
    assert again.json()["manifest_digest"] == first.json()["manifest_digest"]


def test_other_bytes_under_a_published_version_are_refused(
    api: TestClient, tiny_model: Any, draft_toml: str
) -> None:
    """EL-MAN-2."""
    assert _publish(api, tiny_model(), draft=draft_toml).status_code == 201
    error = _error(_publish(api, tiny_model(1), draft=draft_toml), 409, "version_conflict")
    assert "immutable" in error["hint"]
    other = draft_toml.replace("walk", "run")
    error = _error(_publish(api, tiny_model(), draft=other), 409, "version_conflict")
    assert "labels" in error["message"]


def test_what_is_no_model_is_refused(api: TestClient, tiny_model: Any, draft_toml: str) -> None:
    _error(_publish(api, b"this is no model"), 422, "bad_package")
    _error(_publish(api, b""), 422, "bad_package")
    _error(_publish(api, tiny_model()[:100], draft=draft_toml), 422, "bad_package")
    _error(_publish(api, tiny_model(), draft="labels = ["), 422, "bad_package")
    _error(_publish(api, tiny_model(), draft='labels = ["one"]'), 422, "bad_package")
    _error(_publish(api, tiny_model(), version="no spaces", draft=draft_toml), 422, "bad_package")
    _error(_publish(api, tiny_model(), baseline=b"no parquet"), 422, "bad_package")
    _error(api.post("/models/tiny/versions/1"), 422, "refused_input")
    assert api.get("/models").json() == {"items": []}


def test_models_are_listed_and_shown(api: TestClient, tiny_model: Any, draft_toml: str) -> None:
    for version in ("1", "2"):
        _publish(api, tiny_model(int(version)), version, draft_toml)
    assert [(m["name"], m["versions"]) for m in api.get("/models").json()["items"]] == [("tiny", 2)]
    assert [v["version"] for v in api.get("/models/tiny").json()["items"]] == ["1", "2"]
    shown = api.get("/models/tiny/versions/2").json()
    assert shown["manifest"]["labels"] == ["still", "walk"]
    chain = api.get("/models/tiny/versions/2/lineage").json()["chain"]
    assert [link["kind"] for link in chain] == ["version"]
    _error(api.get("/models/none"), 404, "not_found")
    _error(api.get("/models/tiny/versions/9"), 404, "not_found")
    _error(api.get("/models/tiny/versions/9/lineage"), 404, "not_found")


def test_an_artifact_is_served_by_ranges(api: TestClient, tiny_model: Any, draft_toml: str) -> None:
    """EL-ART-1."""
    model = tiny_model()
    digest = hashlib.sha256(model).hexdigest()
    _publish(api, model, draft=draft_toml)
    path = f"/artifacts/{digest}"
    whole = api.get(path)
    assert whole.content == model
    assert whole.headers["etag"] == f'"{digest}"'
    plain = api.get(path, headers={"If-None-Match": '"other"'})  # by the route, not from memory
    assert plain.content == model
    same = ("etag", "cache-control", "accept-ranges", "content-type", "content-length")
    assert [plain.headers[name] for name in same] == [whole.headers[name] for name in same]
    head = api.head(path)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(model)))
    assert head.headers["accept-ranges"] == "bytes"
    part = api.get(path, headers={"Range": "bytes=10-", "If-Range": f'"{digest}"'})
    assert part.status_code == 206
    assert part.content == model[10:]
    assert part.headers["content-range"] == f"bytes 10-{len(model) - 1}/{len(model)}"
    changed = api.get(path, headers={"Range": "bytes=10-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, model)
    beyond = api.get(path, headers={"Range": f"bytes={len(model)}-"})
    assert beyond.status_code == 416
    assert api.get(path, headers={"If-None-Match": f'"{digest}"'}).status_code == 304
    _error(api.get(f"/artifacts/{'0' * 64}"), 404, "not_found")


def test_a_large_artifact_is_not_held_in_memory(
    api: TestClient, tiny_model: Any, draft_toml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop_controller.api.small_artifacts.SMALL_MAX_BYTES", 10)
    monkeypatch.setattr("edgeloop_controller.api.small_artifacts._small", None)
    model = tiny_model()
    _publish(api, model, draft=draft_toml)
    assert api.get(f"/artifacts/{hashlib.sha256(model).hexdigest()}").content == model


def test_a_manifest_is_an_artifact(api: TestClient, tiny_model: Any, draft_toml: str) -> None:
    """EL-MAN-1."""
    document = _publish(api, tiny_model(), draft=draft_toml).json()
    manifest = api.get(f"/artifacts/{document['manifest_digest']}")
    assert hashlib.sha256(manifest.content).hexdigest() == document["manifest_digest"]


def test_devices_are_listed_shown_and_labelled(
    api: TestClient, controller: Any, make_device: Any, telemetry: Any
) -> None:
    device = make_device("d1", labels={"site": "lab", "arm": "left"})
    controller.takes(device.hello(), telemetry("d1", device.epoch, 1, 3))
    assert [d["id"] for d in api.get("/devices").json()["items"]] == ["d1"]
    shown = api.get("/devices/d1").json()
    none = dict.fromkeys(("lost", "duplicates", "merged"), 0)
    given_up = dict.fromkeys(("sketches_shed", "samples_dropped", "events_dropped"), 0)
    assert shown["telemetry"] == [{"epoch": device.epoch, "through": 3} | none | given_up]
    given = {"labels": {"site": "field", "spare": "yes", "arm": ""}}
    assert api.patch("/devices/d1/labels", json=given).json()["labels"] == {
        "site": "field",
        "spare": "yes",
    }
    back = api.patch("/devices/d1/labels", json={"labels": {"site": None, "arm": None}})
    assert back.json()["labels"] == {"site": "lab", "spare": "yes", "arm": "left"}
    _error(api.get("/devices/none"), 404, "not_found")
    _error(api.patch("/devices/none/labels", json=given), 404, "not_found")
    _error(api.patch("/devices/d1/labels", json={"labels": {"a b": "x"}}), 422, "refused_input")
    _error(api.patch("/devices/d1/labels", json={"labels": {"device": "x"}}), 422, "refused_input")
    _error(api.patch("/devices/d1/labels", json={"label": {}}), 422, "refused_input")


def test_rollouts_over_http(
    api: TestClient, controller: Any, make_device: Any, tiny_model: Any, draft_toml: str
) -> None:
    controller.takes(make_device("d1").hello())
    _publish(api, tiny_model(), draft=draft_toml)
    request = {"name": "tiny", "version": "1", "waves": ["100%"], "terms": {"soak_s": 1}}
    started = api.post("/rollouts", json=request)
    assert started.status_code == 201, started.text
    assert started.json()["terms"]["soak_s"] == 1
    assert started.json()["wave"] == 1
    _error(api.post("/rollouts", json=request), 409, "conflict")
    number = started.json()["id"]
    assert api.post(f"/rollouts/{number}/pause").json()["status"] == "paused"
    _error(api.post(f"/rollouts/{number}/pause"), 409, "conflict")
    assert api.post(f"/rollouts/{number}/resume").json()["status"] == "running"
    ended = api.post(f"/rollouts/{number}/abort", json={"reason": "a test"}).json()
    assert (ended["status"], ended["verdict"]) == ("aborted", "a test")
    assert [r["id"] for r in api.get("/rollouts").json()["items"]] == [number]
    _error(api.get("/rollouts/99"), 404, "not_found")
    _error(api.get("/rollouts/x"), 422, "refused_input")
    for wrong, code in (
        ({"selector": "a=="}, "bad_selector"),
        ({"waves": ["200%"]}, "bad_waves"),
        ({"terms": {"soak": 1}}, "refused_input"),
        ({"terms": {"soak_s": -1}}, "refused_input"),
        ({"slot": "no spaces"}, "refused_input"),
    ):
        _error(api.post("/rollouts", json=request | wrong), 422, code)


def _sample(controller: Any, version: VersionRef, count: int) -> None:
    records = tuple(
        Record(
            sequence=n,
            body=Sample(
                slot="main",
                version=version,
                taken_at=float(n),
                reference=f"r{n}",
                features=(1.0, 2.0, 3.0),
                prediction=1,
                confidence=0.9,
            ),
        )
        for n in range(1, count + 1)
    )
    batch = TelemetryBatch(epoch="a" * 16, base=1, records=records)
    controller.takes(Inbound(up_topic("d1", Up.TELEMETRY), encode(batch)))


def test_the_annotators_queue(api: TestClient, controller: Any) -> None:
    _sample(controller, controller.publish("1"), 5)
    page = api.get("/samples", params={"unlabelled": True, "limit": 3}).json()
    assert [s["reference"] for s in page["items"]] == ["r1", "r2", "r3"]
    assert page["items"][0]["predicted_label"] == "walk"
    assert page["items"][0]["features"] == [1.0, 2.0, 3.0]
    rest = api.get("/samples", params={"after": page["next"], "limit": 3}).json()
    assert [s["reference"] for s in rest["items"]] == ["r4", "r5"]
    assert rest["next"] is None
    ids = [s["id"] for s in page["items"]]
    labels = [{"sample_id": i, "label": "still"} for i in ids]
    given = {"annotator": "ann", "labels": labels}
    assert api.post("/labels", json=given).json() == {"stored": 3}
    left = api.get("/samples", params={"unlabelled": True}).json()["items"]
    assert [s["reference"] for s in left] == ["r4", "r5"]
    bad = {"annotator": "ann", "labels": [*labels, {"sample_id": left[0]["id"], "label": "fly"}]}
    assert "still, walk" in _error(api.post("/labels", json=bad), 422, "refused_input")["hint"]
    missing = {"annotator": "ann", "labels": [{"sample_id": 999, "label": "walk"}]}
    _error(api.post("/labels", json=missing), 404, "not_found")
    assert len(api.get("/samples", params={"unlabelled": True}).json()["items"]) == 2


def test_events_are_followed(api: TestClient, controller: Any, make_device: Any) -> None:
    controller.takes(make_device("d1").hello())
    page = api.get("/events").json()
    assert [e["kind"] for e in page["items"]] == ["device.joined"]
    controller.publish("1")
    more = api.get("/events", params={"after": page["next"]}).json()
    assert [e["kind"] for e in more["items"]] == ["version.published"]
    assert api.get("/events", params={"after": more["next"]}).json()["next"] == more["next"]
    kinds = api.get("/events", params={"kind": "device.*"}).json()["items"]
    assert [e["kind"] for e in kinds] == ["device.joined"]


def test_health_and_openapi(api: TestClient, controller: Any) -> None:
    health = api.get("/health").json()
    assert health["status"] == "degraded"
    assert health["broker"]["connected"] is False
    controller.parts.services.listener.connected()
    assert api.get("/health").json()["status"] == "ok"
    paths = api.get("http://c/openapi.json").json()["paths"]
    assert "/v1/models/{name}/versions/{version}" in paths
    page = api.get("http://c/docs").text
    assert "http://" not in page, "the pages work without a network"
    assert "https://" not in page
    _error(api.get("/nothing"), 404, "not_found")
    _error(api.delete("/health"), 405, "method_not_allowed")


def test_the_published_description_is_the_codes() -> None:
    published = Path(__file__).parents[2] / "docs/spec/openapi.json"
    assert published.read_text(encoding="utf-8") == openapi_text(), "run `make schemas`"


def test_an_upload_above_the_limit_is_refused(config: ControllerConfig, database: Database) -> None:
    small = config.model_copy(
        update={"limits": LimitsConfig(upload_max_bytes=1000, baseline_max_bytes=1000)}
    )

    class Silent:
        def publish(self, _topic: str, _payload: bytes) -> bool:
            return True

    app = create_app(
        build(
            small,
            database,
            Silent(),
            SystemClock(),
            LocalArtifactStore(small.artifacts_dir),
            LocalExecutor(),
        ).services
    )
    with TestClient(app, base_url="http://localhost/v1") as api:
        error = _error(_publish(api, b"x" * 2000), 413, "too_large")
        assert "1000" in error["message"]
        _error(_publish(api, b"x" * 4_000_000), 413, "too_large")

        def body() -> Iterator[bytes]:  # no content-length
            yield b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
            for _ in range(40):
                yield b"x" * 100_000
            yield b"\r\n--b--\r\n"

        headers = {"content-type": "multipart/form-data; boundary=b"}
        streamed = api.post("/models/tiny/versions/1", content=body(), headers=headers)
        _error(streamed, 413, "too_large")
        _error(
            api.post(
                "/labels", content=b"[" * 2_000_000, headers={"content-type": "application/json"}
            ),
            413,
            "too_large",
        )


def test_a_surprise_is_not_shown(
    api: TestClient, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_session: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("edgeloop_controller.api.routes.devices.devices.every", explode)
    error = _error(api.get("/devices"), 500, "failed")
    assert "secret" not in error["message"]
