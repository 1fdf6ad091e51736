"""What is read from an ONNX file, and every file that is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.introspect import introspect
from edgeloop_protocol.manifest import TensorSpec


def test_reads_inputs_outputs_opset_and_operators(make_model):
    facts = introspect(make_model())
    assert facts.inputs == (TensorSpec(name="x", dtype="float32", shape=(None, 4)),)
    assert facts.outputs == (TensorSpec(name="probabilities", dtype="float32", shape=(None, 3)),)
    assert (facts.opset, facts.ir_version) == (17, 8)
    assert facts.operators == ("Gemm", "Softmax")


@pytest.mark.parametrize("junk", [b"", b"not a model at all", b"\x00" * 100, b"\xff" * 5000])
def test_a_file_that_is_no_model_is_refused(junk):
    with pytest.raises(PackagingError, match=r"not an ONNX model|empty") as caught:
        introspect(junk)
    assert caught.value.hint


def test_a_truncated_file_is_refused_or_fails_its_trial(make_model):
    """Every cut that parses at all lacks its graph's outputs or its opset."""
    model = make_model()
    for length in range(1, len(model), 7):
        try:
            facts = introspect(model[:length])
        except PackagingError:
            continue
        assert facts.opset is None  # runtime refuses it: see test_packaging_package


def test_an_opset_from_the_future_is_refused(make_model):
    with pytest.raises(PackagingError, match="needs opset 99; this controller knows up to"):
        introspect(make_model(opset=99))


def test_external_data_is_refused_wherever_it_hides(make_model, edit_model):
    def point_outside(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")

    def hide_in_attribute(proto: onnx.ModelProto) -> None:
        hidden = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
        hidden.data_location = TensorProto.EXTERNAL
        hidden.external_data.add(key="location", value="/etc/passwd")
        node = helper.make_node("Constant", [], ["c"], value=hidden)
        inner = helper.make_graph([node], "inner", [], [])
        proto.graph.node.append(helper.make_node("If", ["k"], ["o"], then_branch=inner))

    for change in (point_outside, hide_in_attribute):
        with pytest.raises(PackagingError, match="external files"):
            introspect(edit_model(make_model(), change))


def test_several_inputs_are_read(make_model, edit_model):
    def add_input(proto: onnx.ModelProto) -> None:
        proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2]))

    assert [s.name for s in introspect(edit_model(make_model(), add_input)).inputs] == ["x", "y"]


def test_initialisers_listed_as_inputs_are_no_inputs(make_model, edit_model):
    def list_weights(proto: onnx.ModelProto) -> None:
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))

    assert len(introspect(edit_model(make_model(), list_weights)).inputs) == 1


def test_a_map_output_is_refused_with_the_mend(make_model, edit_model):
    def zip_map(proto: onnx.ModelProto) -> None:
        output = proto.graph.output.add()
        output.name = "zipped"
        output.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64

    with pytest.raises(PackagingError, match="zipped is not a tensor") as caught:
        introspect(edit_model(make_model(), zip_map))
    assert "zipmap" in caught.value.hint


def test_operators_of_other_sets_carry_their_domain():
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    fitted = LogisticRegression().fit(x, x[:, 0] > 0)
    model = to_onnx(fitted, x[:1], options={id(fitted): {"zipmap": False}}, target_opset=17)
    assert "ai.onnx.ml.LinearClassifier" in introspect(model.SerializeToString()).operators
