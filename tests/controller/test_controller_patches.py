"""Patches in the middle: made once for each pair that is wanted, offered to who can use them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_controller.config import ControllerConfig, PatchesConfig, RetrainingConfig
from edgeloop_controller.core.rollout_types import ProbationTerms, RolloutTerms
from edgeloop_controller.errors import NotFoundError, PackagingError
from edgeloop_controller.packaging.deltas import Delta, make_deltas
from edgeloop_controller.services.patches import Patches
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store import events
from edgeloop_protocol.patch_formats import HDIFF, TENSORS

BOTH = (TENSORS, HDIFF)
TERMS = RolloutTerms(soak_s=0, min_compared=0, probation=ProbationTerms(min_s=0.1))


class Encoder:
    """Stands for the child process: gives what it is told to give."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.sizes = {TENSORS: 60, HDIFF: 40}
        self.problem = ""

    def __call__(self, base: Path, new: Path) -> list[Delta]:
        self.asked.append((base.name, new.name))
        if self.problem:
            raise PackagingError(self.problem)
        number = len(self.asked)
        return [
            Delta(name, f"{name}{number}".encode().ljust(size)) for name, size in self.sizes.items()
        ]


@pytest.fixture
def config(tmp_path: Path) -> ControllerConfig:
    return ControllerConfig(
        data_dir=tmp_path,
        retraining=RetrainingConfig(policies_dir=None),
        patches=PatchesConfig(artifact_min_bytes=0, max_bytes=200),
    )


@pytest.fixture
def encoder(controller: Any) -> Encoder:
    encoder = Encoder()
    controller.parts.patches._make = encoder
    return encoder


def join(controller: Any, make_device: Callable[..., Any], *names: str, **options: Any) -> Any:
    joined = [make_device(name, **({"patch_formats": BOTH} | options)) for name in names]
    controller.takes(*[device.hello() for device in joined])
    return joined


def roll_out(controller: Any, devices: Any, version: str, look: bool = True) -> Any:
    """Publish it, make what patches are wanted, offer it; the last desired of each device."""
    controller.publish(version, seed=int(version))
    if look:
        controller.parts.patches.look()
    controller.parts.services.rollouts.start(
        RolloutRequest(name="tiny", version=version, selector="all", waves=("100%",), terms=TERMS)
    )
    for _ in range(3):
        controller.parts.reconciler.tick()
        controller.clock.advance(1)
    said = [controller.broker.desired(device.id)[-1] for device in devices]
    controller.takes(*[d.obeys(s) for d, s in zip(devices, said, strict=True)])
    for _ in range(3):
        controller.clock.advance(1)
        controller.parts.reconciler.tick()
    return [desired.slots[0].offer for desired in said]


def kinds(controller: Any) -> list[str]:
    with controller.parts.services.database.reading() as session:
        return [event.kind for event in events.after(session, 0, "patch.", 100)]


def test_a_patch_is_offered_to_who_holds_its_base(
    controller: Any, make_device: Any, encoder: Encoder
) -> None:
    """EL-ART-4."""
    devices = join(controller, make_device, "d1", "d2")
    (first, _) = roll_out(controller, devices, "1")
    assert first.patch is None
    newcomers = join(controller, make_device, "d3")
    second, *_, of_newcomer = roll_out(controller, [*devices, *newcomers], "2")
    assert encoder.asked == [(first.artifact_digest, second.artifact_digest)]
    assert second.patch.format == HDIFF, "the smaller one"
    assert second.patch.base_manifest_digest == first.manifest_digest
    assert second.patch.base_artifact_digest == first.artifact_digest
    content = controller.parts.services.artifacts.get(second.patch.digest)
    assert len(content) == second.patch.size_bytes == 40
    assert of_newcomer.patch is None, "it has nothing to apply it to"


@pytest.mark.parametrize(("formats", "expected"), [((TENSORS,), TENSORS), (("other.1",), None)])
def test_only_formats_that_the_device_applies_are_offered(
    controller: Any, make_device: Any, encoder: Encoder, formats: Any, expected: str | None
) -> None:
    devices = join(controller, make_device, "d1", patch_formats=formats)
    roll_out(controller, devices, "1")
    (offer,) = roll_out(controller, devices, "2")
    assert (offer.patch.format if offer.patch else None) == expected


def test_for_a_fleet_that_applies_none_no_patch_is_made(
    controller: Any, make_device: Any, encoder: Encoder
) -> None:
    devices = join(controller, make_device, "d1", patch_formats=())
    roll_out(controller, devices, "1")
    roll_out(controller, devices, "2")
    controller.parts.patches.look()
    assert encoder.asked == []


def test_a_rollout_waits_for_no_patch_and_a_patch_is_no_new_revision(
    controller: Any, make_device: Any, encoder: Encoder
) -> None:
    devices = join(controller, make_device, "d1")
    roll_out(controller, devices, "1")
    (offer,) = roll_out(controller, devices, "2", look=False)
    assert offer.patch is None
    revision = controller.broker.desired("d1")[-1].revision
    controller.parts.patches.look()
    controller.parts.reconciler.tick()
    assert controller.broker.desired("d1")[-1].revision == revision


def test_a_pair_is_tried_once_also_after_a_restart(
    controller: Any, make_device: Any, encoder: Encoder
) -> None:
    devices = join(controller, make_device, "d1")
    roll_out(controller, devices, "1")
    encoder.problem = "it crashed"
    (offer,) = roll_out(controller, devices, "2")
    assert offer.patch is None
    assert kinds(controller) == ["patch.failed"]
    services = controller.parts.services
    again = Patches(
        services.database, services.artifacts, controller.clock, services.config.patches, encoder
    )
    for _ in range(3):
        controller.clock.advance(100)
        again.look()
    assert len(encoder.asked) == 1


def test_patches_are_bounded_and_the_oldest_go_first(
    controller: Any, make_device: Any, encoder: Encoder
) -> None:
    """Three pairs of 100 bytes, and room for 200."""
    devices = join(controller, make_device, "d1")
    offers = [roll_out(controller, devices, str(n))[0] for n in range(1, 5)]
    artifacts = controller.parts.services.artifacts
    with pytest.raises(NotFoundError):
        artifacts.get(offers[1].patch.digest)
    for offer in offers[2:]:
        assert artifacts.get(offer.patch.digest)
    with controller.parts.services.database.reading() as session:
        gone = {offers[1].artifact_digest}
        assert controller.parts.patches.hints(session, ["d1"], gone).holders == {}


def test_the_child_makes_patches_and_leaves_out_what_is_not_worth_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=20_000).astype(np.float32)
    base, near, far = tmp_path / "base", tmp_path / "near", tmp_path / "far"
    base.write_bytes(weights.tobytes())
    near.write_bytes((weights + np.float32(1e-5)).tobytes())
    far.write_bytes(random.bytes(80_000))
    deltas = make_deltas(base, near)
    assert deltas[0].format == TENSORS
    assert len(deltas[0].content) <= 0.7 * 80_000
    assert make_deltas(base, far) == []


def test_a_child_that_fails_or_hangs_is_an_error(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"x" * 1000)
    with pytest.raises(PackagingError, match="exit code 1"):
        make_deltas(base, tmp_path / "nowhere")
    with pytest.raises(PackagingError, match="within"):
        make_deltas(base, base, timeout_s=0.01)
