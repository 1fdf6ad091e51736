"""GET /telemetry/windows, and devices by selector: what comes, in order, and what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeloop_controller.api.app import create_app
from edgeloop_controller.services.inbox import Inbound
from edgeloop_protocol.messages import Record, TelemetryBatch, VersionRef, WindowSummary, encode
from edgeloop_protocol.topics import Up, up_topic

WINDOWS = "/v1/telemetry/windows"


@pytest.fixture
def api(controller: Any) -> Iterator[TestClient]:
    with TestClient(create_app(controller.parts.services), base_url="http://localhost") as client:
        yield client


def windows(device_id: str, epoch: str, version: VersionRef, first: int, count: int) -> Inbound:
    records = tuple(
        Record(
            sequence=number,
            body=WindowSummary(
                slot="main",
                version=version,
                started_at=10.0 * number,
                ended_at=10.0 * number + 10,
                count=5,
                latency_p50_us=100.0,
                latency_p95_us=200.0,
                predictions=(3, 2),
            ),
        )
        for number in range(first, first + count)
    )
    batch = TelemetryBatch(epoch=epoch, base=1, records=records)
    return Inbound(up_topic(device_id, Up.TELEMETRY), encode(batch))


@pytest.fixture
def two_devices(controller: Any, make_device: Any) -> VersionRef:
    """Each sent two windows of tiny@1 at 0 s, and one more at 100 s."""
    version = controller.publish("1")
    devices = [make_device(name, labels={"site": name}) for name in ("a", "b")]
    for one in devices:
        controller.takes(one.hello(), windows(one.id, one.epoch, version, 1, 2))
    controller.clock.advance(100.0)
    for one in devices:
        controller.takes(windows(one.id, one.epoch, version, 3, 1))
    return version


def test_windows_come_in_order_with_labels_by_name(api: Any, two_devices: VersionRef) -> None:
    first = api.get(WINDOWS, params={"limit": 4}).json()
    rest = api.get(WINDOWS, params={"limit": 4, "after": first["next"]}).json()
    assert [len(first["items"]), len(rest["items"]), rest["next"]] == [4, 2, None]
    assert [one["id"] for one in first["items"] + rest["items"]] == [1, 2, 3, 4, 5, 6]
    one = first["items"][0]
    assert one["predictions"] == {"still": 3, "walk": 2}
    assert (one["version"]["name"], one["version"]["version"]) == ("tiny", "1")
    assert (one["device_id"], one["windows"], one["count"]) == ("a", 1, 5)


def test_windows_are_chosen(api: Any, controller: Any, two_devices: Any) -> None:
    start = controller.clock.wall() - 100.0

    def ids(**query: Any) -> list[int]:
        return [one["id"] for one in api.get(WINDOWS, params=query).json()["items"]]

    assert ids(device_id="b") == [3, 4, 6]
    assert ids(slot="other") == []
    assert ids(version="tiny@1", device_id="a") == [1, 2, 5]
    assert ids(since=start + 50) == [5, 6]
    assert ids(until=start + 50, device_id="a") == [1, 2]
    assert ids(since=start + 50, until=start + 60) == []
    assert api.get(WINDOWS, params={"version": "tiny"}).status_code == 422
    assert api.get(WINDOWS, params={"version": "tiny@9"}).status_code == 404
    assert api.get(WINDOWS, params={"limit": 1001}).status_code == 422


def test_a_version_that_was_never_published_here_is_numbered(
    api: Any, controller: Any, make_device: Any
) -> None:
    device = make_device("a")
    stranger = VersionRef(name="x", version="1", manifest_digest="f" * 64)
    controller.takes(device.hello(), windows("a", device.epoch, stranger, 1, 1))
    (one,) = api.get(WINDOWS).json()["items"]
    assert one["version"] is None
    assert one["predictions"] == {"0": 3, "1": 2}


def test_devices_are_chosen_by_selector(api: Any, two_devices: Any) -> None:
    def ids(selector: str) -> list[str]:
        found = api.get("/v1/devices", params={"selector": selector}).json()["items"]
        return [device["id"] for device in found]

    assert ids("all") == ids("") == ["a", "b"]
    assert ids("site=b") == ["b"]
    assert ids("!site") == []
    refused = api.get("/v1/devices", params={"selector": "site="})
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "bad_selector"
