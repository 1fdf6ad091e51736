"""Bad versions of the tiny model, one of each kind that a device has to survive.

Each is a package as a controller would offer it, what the server really has of it, and words that
the agent must say of it. Those that misbehave while they serve do so on real inputs only: golden
inputs are small numbers, the stream's are not, so that a self-test cannot see it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgeloop_protocol.limits import MIB
from edgeloop_protocol.manifest import Artifact, Golden, Requirements, TensorSpec
from edgeloop_protocol.messages import Probation

QUICK: Final = Probation(min_s=0.3, min_examples=3, max_s=20.0)
LEAKY: Final = Probation(min_s=15.0, min_examples=20, max_s=25.0, max_latency_ratio=1e6)
"""Long, and not to end by the time that fresh memory takes."""
GOLDEN_INPUTS: Final = ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-1.0, 0.5, 0.25))
WEIGHTS: Final = ((1.0, -1.0), (0.5, 0.5), (-1.0, 1.0))
RUNNER_BYTES: Final = 400 * MIB
"""More than a runner with onnxruntime and two tiny models has."""
LEAK_FLOATS: Final = 1.2e5
LEAK_FLOATS_MAX: Final = 3e7
"""At once: above the limit of what is resident, below that of the address space."""
LEAK_SEED: Final = 104_000_000.0
"""By it onnxruntime draws new extremes for some 200 answers: 7 MB after 10, 50 after 100, 90 after
140, 180 after 220. (A small seed draws the smallest number first.)"""
EXABYTE: Final = 10**18


@dataclass
class BadVersion:
    package: Any
    says: str
    """A regular expression for the refusal's cause and detail, and where the runner died, why."""
    served: dict[str, bytes] = field(default_factory=dict)
    """What the server has in place of the right bytes, by digest."""
    probation: Probation = QUICK
    offer: Any = None
    """What is offered, if not what the package says of itself."""


MakePackage = Callable[..., Any]
Kind = Callable[[MakePackage], BadVersion]
KINDS: dict[str, Kind] = {}


def kind(make: Kind) -> Kind:
    KINDS[make.__name__] = make
    return make


# ---- graphs -----------------------------------------------------------------------------------


def _constant(name: str, value: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def _model(
    nodes: list[Any],
    constants: tuple[Any, ...] = (),
    opset: int = 17,
    input_name: str = "x",
    input_type: int = TensorProto.FLOAT,
    scores: int = 2,
) -> bytes:
    """`nodes` make `p` of `x` and the good model's scores, `good`."""
    start = [
        helper.make_node("Gemm", ["x", "w"], ["sums"]),
        helper.make_node("Softmax", ["sums"], ["good"], axis=1),
    ]
    whole = nodes if input_name != "x" or input_type != TensorProto.FLOAT else start + nodes
    graph = helper.make_graph(
        whole,
        "bad",
        [helper.make_tensor_value_info(input_name, input_type, [None, 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, scores])],
        [_constant("w", WEIGHTS), *constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def _plus_zero(nodes: list[Any], last: str, constants: tuple[Any, ...] = ()) -> bytes:
    """The good scores, plus zero times what `nodes` make."""
    return _model(
        [
            *nodes,
            helper.make_node("Mul", [last, "nothing"], ["no_more"]),
            helper.make_node("Add", ["good", "no_more"], ["p"]),
        ],
        (_constant("nothing", 0.0), *constants),
    )


def _loop(body: list[Any], trips: str, goes_on: str, carried: str, made: str) -> Any:
    """Loop `body`, which makes `after` of `before`, a float scalar."""
    whole = [helper.make_node("Identity", ["cond_in"], ["cond_out"]), *body]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        whole,
        "body",
        [
            value("trip", TensorProto.INT64, []),
            value("cond_in", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, None),
        ],
        [value("cond_out", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Loop", [trips, goes_on, carried], [made], body=graph)


_STREAM_IS_LIVE: Final = [
    # Of every golden input x0 is a multiple of 0.5; a measured number is none.
    helper.make_node("Gather", ["x", "column"], ["x0"], axis=1),
    helper.make_node("Mul", ["x0", "two"], ["doubled"]),
    helper.make_node("Floor", ["doubled"], ["whole"]),
    helper.make_node("Sub", ["doubled", "whole"], ["rest"]),
    helper.make_node("Greater", ["rest", "little"], ["live"]),
    helper.make_node("Cast", ["live"], ["live_number"], to=TensorProto.FLOAT),
]
_LIVE_CONSTANTS: Final = (
    _constant("column", [0], np.int64),
    _constant("two", 2.0),
    _constant("little", 1e-3),
)


def _when_live(value: float) -> bytes:
    """The good scores; on real inputs `value`."""
    return _model(
        [*_STREAM_IS_LIVE, helper.make_node("Where", ["live", "bad", "good"], ["p"])],
        (*_LIVE_CONSTANTS, _constant("bad", value)),
    )


# ---- what was fetched is not what was offered ---------------------------------------------------


@kind
def zero_bytes(make_package: MakePackage) -> BadVersion:
    package = make_package("empty", weights=[[3, -3], [0.5, 0.5], [-3, 3]])
    return BadVersion(package, "only 0 of the", {package.manifest.artifact.digest: b""})


@kind
def truncated(make_package: MakePackage) -> BadVersion:
    package = make_package("cut-off", weights=[[4, -4], [0.5, 0.5], [-4, 4]])
    half = len(package.model) // 2
    served = {package.manifest.artifact.digest: package.model[:half]}
    return BadVersion(package, f"only {half} of the {len(package.model)} bytes", served)


@kind
def published_truncated(make_package: MakePackage) -> BadVersion:
    whole = make_package("1").model
    package = make_package("half", model=whole[: len(whole) // 2])
    return BadVersion(package, "onnxruntime cannot load it")


@kind
def wrong_digest(make_package: MakePackage) -> BadVersion:
    package = make_package("other", weights=[[5, -5], [0.5, 0.5], [-5, 5]])
    other = package.model[:-1] + bytes([package.model[-1] ^ 1])
    return BadVersion(
        package, "digest mismatch.*not what its digest", {package.manifest.artifact.digest: other}
    )


@kind
def larger_than_announced(make_package: MakePackage) -> BadVersion:
    package = make_package("longer", weights=[[6, -6], [0.5, 0.5], [-6, 6]])
    longer = package.model + b"more"
    return BadVersion(
        package, "longer than the .* bytes offered", {package.manifest.artifact.digest: longer}
    )


# ---- what never fits ----------------------------------------------------------------------------


@kind
def larger_than_the_disk(make_package: MakePackage) -> BadVersion:
    return BadVersion(
        make_package("wide", requires=Requirements(disk_bytes=EXABYTE)), "larger than the disk"
    )


@kind
def more_memory_than_the_device(make_package: MakePackage) -> BadVersion:
    return BadVersion(
        make_package("hungry", requires=Requirements(memory_bytes=EXABYTE)),
        "needs more memory than the device has",
    )


@kind
def announced_opset(make_package: MakePackage) -> BadVersion:
    model = _model([helper.make_node("Identity", ["good"], ["p"])], opset=200)
    artifact = Artifact(digest=hashlib.sha256(model).hexdigest(), size_bytes=len(model), opset=200)
    return BadVersion(make_package("late", model=model, artifact=artifact), "opset too new")


# ---- what cannot be loaded ----------------------------------------------------------------------


@kind
def not_a_model(make_package: MakePackage) -> BadVersion:
    package = make_package("rubbish", model=b"this is not a model" * 10)
    return BadVersion(package, "self-test failed: onnxruntime cannot load it")


@kind
def unknown_opset(make_package: MakePackage) -> BadVersion:
    """The manifest says 17; the file, another."""
    model = _model([helper.make_node("Identity", ["good"], ["p"])], opset=200)
    return BadVersion(make_package("opset", model=model), "cannot load it.*[Oo]pset")


@kind
def unknown_operator(make_package: MakePackage) -> BadVersion:
    model = _model([helper.make_node("Teleport", ["good"], ["p"])])
    return BadVersion(make_package("operator", model=model), "cannot load it.*Teleport")


@kind
def external_data_outside(make_package: MakePackage) -> BadVersion:
    weights = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[3, 2])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../../../../../etc/passwd"), ("length", "24")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    model = _model([helper.make_node("Gemm", ["x", "secret"], ["p"])], (weights,))
    return BadVersion(make_package("spy", model=model), "External data path")


# ---- what the self-test finds -------------------------------------------------------------------


@kind
def wrong_input_name(make_package: MakePackage) -> BadVersion:
    nodes = [helper.make_node("Gemm", ["y", "w"], ["p"])]
    model = _model(nodes, input_name="y")
    return BadVersion(make_package("named", model=model), r"inputs are \['y'\].*says \['x'\]")


@kind
def wrong_dtype(make_package: MakePackage) -> BadVersion:
    """The manifest says float32, the file wants float64."""
    nodes = [
        helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["single", "w"], ["p"]),
    ]
    model = _model(nodes, input_type=TensorProto.DOUBLE)
    return BadVersion(make_package("typed", model=model), "data type.*float.*double")


@kind
def wrong_shape(make_package: MakePackage) -> BadVersion:
    model = _model([helper.make_node("Concat", ["good", "good"], ["p"], axis=1)], scores=4)
    return BadVersion(make_package("shaped", model=model), r"shape \(1, 4\); expected \(1, 2\)")


@kind
def wrong_input_shape(make_package: MakePackage) -> BadVersion:
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 1, 3))
    model = _model([helper.make_node("Identity", ["good"], ["p"])])
    return BadVersion(
        make_package("folded", model=model, inputs=(spec,)), "self-test failed.*[Rr]ank"
    )


@kind
def golden_mismatch(make_package: MakePackage) -> BadVersion:
    package = make_package(
        "permuted",
        weights=[[-1, 1], [0.5, 0.5], [1, -1]],
        golden=make_package("1").manifest.golden,
    )
    return BadVersion(package, "self-test failed: golden input 1: off by")


@kind
def nan_in_the_self_test(make_package: MakePackage) -> BadVersion:
    golden = make_package("1").manifest.golden
    return BadVersion(make_package("nan", nan=True, golden=golden), "gives NaN or Inf")


@kind
def constant_output(make_package: MakePackage) -> BadVersion:
    """Golden outputs were made with the constant model itself, as publishing does it."""
    model = _model(
        [
            helper.make_node("Mul", ["good", "zero"], ["zeroed"]),
            helper.make_node("Add", ["zeroed", "half"], ["p"]),
        ],
        (_constant("zero", 0.0), _constant("half", 0.5)),
    )
    golden = Golden(inputs=GOLDEN_INPUTS, outputs=((0.5, 0.5),) * 3)
    return BadVersion(
        make_package("stuck", model=model, golden=golden), "constant output: .* very same scores"
    )


@kind
def endless_loop(make_package: MakePackage) -> BadVersion:
    body = [helper.make_node("Identity", ["before"], ["after"])]
    model = _plus_zero(
        [_loop(body, "", "forever", "start", "never")],
        "never",
        (_constant("forever", True, np.bool_), _constant("start", 1.0)),
    )
    return BadVersion(make_package("endless", model=model), "self-test hung")


@kind
def memory_beyond_its_limit(make_package: MakePackage) -> BadVersion:
    """16 GiB at once."""
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
    ]
    model = _plus_zero(nodes, "zero", (_constant("huge", [4 * 2**30], np.int64),))
    return BadVersion(
        make_package("huge", model=model, requires=Requirements(memory_bytes=RUNNER_BYTES)),
        "memory: beyond its limit",
    )


@kind
def abort_in_the_self_test(make_package: MakePackage) -> BadVersion:
    """-2^31 / -1 in int32: onnxruntime checks for a zero divisor, not for this one, and the CPU
    raises SIGFPE. (Of x86; ARM gives a number.)"""
    return BadVersion(
        make_package("crash", model=_overflowing_division(always=True)), "self-test crashed: killed"
    )


# ---- what only real inputs bring out ------------------------------------------------------------


@kind
def nan_on_real_inputs(make_package: MakePackage) -> BadVersion:
    return BadVersion(make_package("live-nan", model=_when_live(float("nan"))), "nan or inf")


@kind
def inf_on_real_inputs(make_package: MakePackage) -> BadVersion:
    return BadVersion(make_package("live-inf", model=_when_live(float("inf"))), "nan or inf")


@kind
def constant_on_real_inputs(make_package: MakePackage) -> BadVersion:
    package = make_package("live-stuck", model=_when_live(0.5))
    terms = Probation(min_s=1, min_examples=20, max_s=25.0)
    return BadVersion(package, "constant output: .* different labels", probation=terms)


@kind
def error_on_some_inputs(make_package: MakePackage) -> BadVersion:
    """Gather beyond the end."""
    nodes = [
        *_STREAM_IS_LIVE,
        helper.make_node("Mul", ["live_number", "far"], ["place"]),
        helper.make_node("Cast", ["place"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "index"], ["rows"], axis=0),
        helper.make_node("ReduceMax", ["rows"], ["row"], keepdims=0),
    ]
    model = _plus_zero(nodes, "row", (*_LIVE_CONSTANTS, _constant("far", 1000.0)))
    return BadVersion(make_package("partial", model=model), "errors: .*out of")


@kind
def ten_times_slower(make_package: MakePackage) -> BadVersion:
    """20,000 turns of a loop, some 10 ms; the old version takes 0.01."""
    body = [helper.make_node("Neg", ["before"], ["after"])]
    model = _plus_zero(
        [_loop(body, "turns", "", "start", "late")],
        "late",
        (_constant("turns", 20_000, np.int64), _constant("start", 1.0)),
    )
    return BadVersion(make_package("slow", model=model), "slower: p95")


@kind
def leak(make_package: MakePackage) -> BadVersion:
    return BadVersion(
        leaking(make_package, "leaking"),
        "memory: the runner process has",
        probation=LEAKY,
    )


def leaking(make_package: MakePackage, version: str) -> Any:
    """The arena keeps what it once had, so each new extreme of a random size stays allocated: it
    grows with what it has answered, as a leak does. (A model has no state to leak by itself.)"""
    nodes = [
        *_STREAM_IS_LIVE,
        helper.make_node("RandomUniform", [], ["u"], shape=[1], low=1e-4, high=1.0, seed=LEAK_SEED),
        helper.make_node("Div", ["unit", "u"], ["floats"]),
        helper.make_node("Min", ["floats", "most"], ["some"]),
        helper.make_node("ReduceMax", ["live_number"], ["is_live"], keepdims=0),
        helper.make_node("Mul", ["some", "is_live"], ["wanted"]),
        helper.make_node("Add", ["wanted", "one"], ["at_least"]),
        helper.make_node("Cast", ["at_least"], ["size"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
    ]
    constants = (
        *_LIVE_CONSTANTS,
        _constant("unit", LEAK_FLOATS),
        _constant("most", LEAK_FLOATS_MAX),
        _constant("one", 1.0),
    )
    model = _plus_zero(nodes, "zero", constants)
    requires = Requirements(memory_bytes=150 * MIB)
    return make_package(version, model=model, requires=requires)


@kind
def abort_on_real_inputs(make_package: MakePackage) -> BadVersion:
    package = make_package("live-crash", model=_overflowing_division(always=False))
    return BadVersion(package, "runner crashed: killed by SIG")


@kind
def hang_on_real_inputs(make_package: MakePackage) -> BadVersion:
    nodes = [
        *_STREAM_IS_LIVE,
        helper.make_node("ReduceMax", ["live_number"], ["is_live"], keepdims=0),
        helper.make_node("Cast", ["is_live"], ["forever"], to=TensorProto.BOOL),
        _loop(
            [helper.make_node("Identity", ["before"], ["after"])], "", "forever", "start", "never"
        ),
    ]
    model = _plus_zero(nodes, "never", (*_LIVE_CONSTANTS, _constant("start", 1.0)))
    return BadVersion(make_package("live-hang", model=model), "runner hung: .*no heartbeat")


def _overflowing_division(always: bool) -> bytes:
    if always:
        live, constants = [helper.make_node("Identity", ["one"], ["is_live"])], ()
    else:
        live = [
            *_STREAM_IS_LIVE,
            helper.make_node("ReduceMax", ["live_number"], ["is_live"], keepdims=0),
        ]
        constants = _LIVE_CONSTANTS
    nodes = [
        *live,
        # 1 becomes -1 on real inputs, else 1
        helper.make_node("Mul", ["is_live", "minus_two"], ["shift"]),
        helper.make_node("Add", ["shift", "one"], ["sign"]),
        helper.make_node("Cast", ["sign"], ["divisor"], to=TensorProto.INT32),
        helper.make_node("Div", ["least", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
        # -2^31 times nothing, and a sum that is not folded away at load
        helper.make_node("Mul", ["number", "nothing"], ["zero"]),
    ]
    more = (
        _constant("minus_two", -2.0),
        _constant("one", 1.0),
        _constant("least", [-(2**31)], np.int32),
    )
    return _plus_zero(nodes, "zero", (*constants, *more))
