"""Admission: what waits and what refuses."""

import pytest

from edgeloop_agent.core.admission import Admission, check_inventory, check_offer
from edgeloop_protocol.manifest import Requirements
from edgeloop_protocol.messages import Inventory, RuntimeInfo

INVENTORY = Inventory(
    agent_version="0",
    architecture="x86_64",
    python="3.11",
    runtimes=(RuntimeInfo(name="onnx", version="1", max_opset=17, max_ir_version=8),),
    memory_bytes=1000,
    disk_free_bytes=10_000,
    cpu_count=1,
)


def test_a_manifest_that_fits_is_admitted(make_package):
    manifest = make_package().manifest
    assert check_inventory(manifest, INVENTORY, False).admission is Admission.ADMITTED
    assert check_offer(manifest, make_package().offer).admission is Admission.ADMITTED


@pytest.mark.parametrize(
    ("inventory", "requires", "admission", "words"),
    [
        ({}, {"architectures": ("armv7l",)}, Admission.REFUSED, "wrong architecture"),
        ({"runtimes": ()}, {}, Admission.REFUSED, "no runtime"),
        ({"max_opset": 16}, {}, Admission.REFUSED, "opset too new"),
        ({}, {"memory_bytes": 1001}, Admission.WAIT, "memory"),
        ({}, {"disk_bytes": 10_001}, Admission.WAIT, "disk"),
        ({"disk_free_bytes": 1}, {}, Admission.WAIT, "disk"),
        ({"memory_total_bytes": 2000}, {"memory_bytes": 2001}, Admission.REFUSED, "more memory"),
        ({"memory_total_bytes": 2000}, {"memory_bytes": 2000}, Admission.WAIT, "memory: 1000"),
        ({"disk_total_bytes": 20_000}, {"disk_bytes": 20_001}, Admission.REFUSED, "the disk"),
        ({"disk_total_bytes": 20_000}, {"disk_bytes": 20_000}, Admission.WAIT, "disk: 10000"),
        ({"disk_total_bytes": 1}, {}, Admission.REFUSED, "larger than the disk"),
    ],
)
def test_what_does_not_fit(make_package, inventory, requires, admission, words):
    """EL-LIFE-8."""
    device = INVENTORY
    if "max_opset" in inventory:
        runtime = device.runtimes[0].model_copy(update=inventory)
        inventory = {"runtimes": (runtime,)}
    device = device.model_copy(update=inventory)
    manifest = make_package(requires=Requirements(**requires)).manifest
    verdict = check_inventory(manifest, device, False)
    assert verdict.admission is admission
    assert words in verdict.cause


def test_going_back_to_what_is_on_disk_never_waits_for_disk(make_package):
    full = INVENTORY.model_copy(update={"disk_free_bytes": 0})
    assert check_inventory(make_package().manifest, full, True).admission is Admission.ADMITTED


def test_a_manifest_that_contradicts_its_offer_is_refused(make_package):
    offer = make_package("1").offer.model_copy(update={"artifact_digest": "0" * 64})
    verdict = check_offer(make_package("1").manifest, offer)
    assert verdict.admission is Admission.REFUSED
    assert verdict.cause == "manifest contradicts the offer"
