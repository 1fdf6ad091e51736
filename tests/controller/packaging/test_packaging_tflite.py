"""Publishing TFLite and models of several inputs."""

import contextlib

import numpy as np
import pytest
from tflite_models import MODELS, fine_tuned, wake_word

from edgeloop_agent.ports import PatchJob
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.patch_process import PatchProcess
from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.deltas import make_deltas
from edgeloop_controller.packaging.introspect import introspect
from edgeloop_controller.packaging.package import draft_like, load_draft, package
from edgeloop_protocol.limits import PATCH_SHARE_MAX
from edgeloop_protocol.manifest import ManifestDraft, Quantisation

WAKE = MODELS / "okay_nabu.tflite"


def test_a_streaming_int8_model_is_published_as_what_it_is():
    model = WAKE.read_bytes()
    manifest = package(model, "nabu", "1", ManifestDraft(labels=("other", "okay nabu")))
    assert manifest.artifact.runtime == "tflite"
    assert manifest.stateful
    assert {"CONV_2D", "VAR_HANDLE"} <= set(manifest.artifact.operators)
    assert len(manifest.features) == 3 * 40
    assert manifest.inputs[0].quantisation == Quantisation(
        scale=0.10196078568696976, zero_point=-128
    )
    assert manifest.golden.tolerance > 2 / 256
    again = package(model, "nabu", "2", draft_like(manifest))
    assert again.golden == manifest.golden


def test_what_the_draft_says_of_a_tflite_file_is_checked():
    with pytest.raises(PackagingError, match="says runtime onnx, but the file is tflite"):
        introspect_and_check(ManifestDraft(runtime="onnx"))
    with pytest.raises(PackagingError, match="the file keeps variables"):
        introspect_and_check(ManifestDraft(stateful=False))


def introspect_and_check(draft):
    return package(WAKE.read_bytes(), "nabu", "1", draft)


def test_a_damaged_tflite_file_is_refused_whatever_the_damage():
    model = WAKE.read_bytes()
    for length in range(8, len(model), len(model) // 5):
        with pytest.raises(PackagingError):
            package(model[:length], "t", "1", ManifestDraft(labels=("a", "b")))
    for place in range(8, 400, 37):
        damaged = model[:place] + b"\xff\xff\xff\x7f" + model[place + 4 :]
        with contextlib.suppress(PackagingError):  # and nothing else
            introspect(damaged)


def test_several_inputs_without_feeds_are_refused_with_the_text_to_add(make_model, edit_model):
    from onnx import TensorProto, helper

    def add_input(proto):
        proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2]))

    with pytest.raises(PackagingError, match="has 2 inputs") as caught:
        package(edit_model(make_model(), add_input), "t", "1", ManifestDraft())
    assert '[[feeds]]\ninput = "y"' in caught.value.hint


def test_feeds_are_written_in_toml(make_model):
    draft = load_draft('[[feeds]]\ninput = "x"\nfeatures = ["d", "c", "b", "a"]\n', "model.toml")
    manifest = package(make_model(), "t", "1", draft)
    assert [feature.name for feature in manifest.features] == ["d", "c", "b", "a"]
    narrow = load_draft('[[feeds]]\ninput = "x"\nfeatures = ["a"]\n', "model.toml")
    with pytest.raises(PackagingError, match="is fed 1 features, but takes 4"):
        package(make_model(), "t", "1", narrow)


@pytest.mark.parametrize(
    ("new", "share"),
    [
        (fine_tuned(wake_word("okay_nabu"), seed=1), 0.2),
        (wake_word("hey_jarvis"), PATCH_SHARE_MAX),
        (wake_word("okay_nabu"), 0.01),
    ],
    ids=["fine-tuned", "another word", "the same"],
)
def test_a_tflite_update_travels_as_a_patch(tmp_path, new, share):
    """Its tensors are not looked for, as in an ONNX file; it is a file of bytes."""
    (tmp_path / "base").write_bytes(WAKE.read_bytes())
    (tmp_path / "new").write_bytes(new)
    deltas = make_deltas(tmp_path / "base", tmp_path / "new")
    assert deltas
    assert len(deltas[-1].content) <= share * len(new)
    for delta in deltas:
        (tmp_path / "patch").write_bytes(delta.content)
        job = PatchJob(delta.format, "base", "patch", "made", len(new))
        PatchProcess(OsDisk(tmp_path)).apply(job)
        assert (tmp_path / "made").read_bytes() == new


def test_a_tflite_update_that_no_patch_shortens_has_none(tmp_path):
    """Weights drawn anew leave nothing to say against the base: the full file it is."""
    base = fine_tuned(wake_word("okay_nabu"), seed=1, share=1.0)
    (tmp_path / "base").write_bytes(base)
    noise = np.random.default_rng(0).integers(0, 256, len(base), dtype=np.uint8)
    (tmp_path / "new").write_bytes(base[:4096] + noise.tobytes()[4096:])
    assert make_deltas(tmp_path / "base", tmp_path / "new") == []
