"""A real agent that updates by a patch, and by the full file where the patch fails (ADR 0015)."""

import hashlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tflite_models import fine_tuned, wake_word

from edgeloop_controller.packaging.package import package
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.manifest import ManifestDraft
from edgeloop_protocol.messages import Offer, Patch
from edgeloop_protocol.patch_formats import HDIFF, TENSORS

pytestmark = pytest.mark.e2e

BALLAST = np.random.default_rng(0).normal(size=100_000).astype(np.float32)


@pytest.fixture
def make_heavy(make_package):
    """A version with weights that are worth a patch."""

    def make(version, moved_by):
        model = onnx.load_from_string(make_package().model)
        weights = (BALLAST + np.float32(moved_by)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "ballast"))
        return make_package(version, model=model.SerializeToString())

    return make


@pytest.fixture
def make_wake_word():
    """A version of a streaming int8 model, published as a controller does it."""

    def make(version, model):
        manifest = package(model, "nabu", version, ManifestDraft(labels=("other", "okay nabu")))
        document, artifact = manifest.canonical(), manifest.artifact
        offer = Offer(
            **manifest.ref().model_dump(),
            manifest_size_bytes=len(document),
            artifact_digest=artifact.digest,
            artifact_size_bytes=artifact.size_bytes,
        )
        artifacts = {offer.manifest_digest: document, offer.artifact_digest: model}
        return SimpleNamespace(model=model, manifest=manifest, offer=offer, artifacts=artifacts)

    return make


def test_a_tflite_model_is_patched_or_comes_whole(
    agent, controller, artifact_server, make_wake_word, wait_until
):
    """EL-ART-4, EL-ART-5, for a file in which no tensors are found."""
    first = make_wake_word("1", wake_word("okay_nabu"))
    second = make_wake_word("2", fine_tuned(first.model, seed=1))
    third = make_wake_word("3", fine_tuned(first.model, seed=2))
    features = len(first.manifest.features)
    stream = np.random.default_rng(7).normal(size=(200, features))
    names = ",".join(feature.name for feature in first.manifest.features)
    np.savetxt(agent.directory / "stream.csv", stream, delimiter=",", header=names, comments="")
    artifact_server.publish(first)
    agent.start()
    controller.offer(first)
    wait_until(lambda: controller.runs(first))

    artifact_server.publish(second)
    patch = make_tensor_patch(first.model, second.model)
    offered = with_patch(second, first, patch)
    artifact_server.artifacts[offered.offer.patch.digest] = patch
    del artifact_server.artifacts[second.offer.artifact_digest]  # the patch is all there is
    controller.offer(offered)
    wait_until(lambda: controller.runs(second), what="version 2 came by its patch")
    assert len(patch) < 0.2 * len(second.model)

    artifact_server.publish(third)
    wrong = make_tensor_patch(first.model, third.model)  # against the version that has gone
    offered = with_patch(third, second, wrong)
    artifact_server.artifacts[offered.offer.patch.digest] = wrong
    controller.offer(offered)
    wait_until(lambda: controller.runs(third), what="version 3 came whole")
    wait_until(lambda: "patch_failed" in events(controller))
    assert fetched(artifact_server, second) == 0
    assert fetched(artifact_server, third) == 1


def with_patch(package, base, patch):
    hint = Patch(
        format=TENSORS,
        base_manifest_digest=base.offer.manifest_digest,
        base_artifact_digest=base.offer.artifact_digest,
        digest=hashlib.sha256(patch).hexdigest(),
        size_bytes=len(patch),
    )
    offer = package.offer.model_copy(update={"patch": hint})
    return SimpleNamespace(offer=offer, manifest=package.manifest)


def test_a_patch_brings_the_update_and_a_bad_one_costs_only_itself(
    agent, controller, artifact_server, make_heavy, wait_until
):
    """EL-ART-4, EL-ART-5."""
    first, second, third = (make_heavy(str(n), n * 1e-4) for n in (1, 2, 3))
    artifact_server.publish(first)
    agent.start()
    wait_until(lambda: controller.hellos)
    assert set(controller.hellos[0].inventory.patch_formats) == {TENSORS, HDIFF}
    controller.offer(first)
    wait_until(lambda: controller.runs(first))

    artifact_server.publish(second)
    patch = make_tensor_patch(first.model, second.model)
    offered = with_patch(second, first, patch)
    artifact_server.artifacts[offered.offer.patch.digest] = patch
    del artifact_server.artifacts[second.offer.artifact_digest]  # the patch is all there is
    controller.offer(offered)
    wait_until(lambda: controller.runs(second), what="version 2 came by its patch")
    wait_until(lambda: "patched" in events(controller))
    assert len(patch) < 0.7 * len(second.model)
    assert fetched(artifact_server, second) == 0

    artifact_server.publish(third)
    bad = b"this is no patch" * 10
    offered = with_patch(third, second, bad)
    artifact_server.artifacts[offered.offer.patch.digest] = bad
    controller.offer(offered)
    wait_until(lambda: controller.runs(third), what="version 3 came whole")
    wait_until(lambda: "patch_failed" in events(controller))
    (failed,) = (e for e in controller.bodies("event") if e.name == "patch_failed")
    assert "does not begin as a tensor patch" in failed.detail
    assert (failed.slot, failed.version) == ("main", third.offer.ref)
    assert fetched(artifact_server, third) == 1


def events(controller):
    return {event.name for event in controller.bodies("event")}


def fetched(artifact_server, package):
    return [digest for digest, _ in artifact_server.requests].count(package.offer.artifact_digest)
