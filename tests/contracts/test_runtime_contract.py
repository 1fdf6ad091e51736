"""The contract of the runner's runtimes, on real models: ONNX of our own, wake words in TFLite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgeloop_agent
import edgeloop_protocol
from edgeloop_agent import plugins
from edgeloop_agent.runner.runtimes import runtime_named
from edgeloop_controller.packaging.package import package
from edgeloop_protocol.feeding import Feeder, scores
from edgeloop_protocol.manifest import Feed, Golden, ManifestDraft
from edgeloop_simulators.bench.model import bench_model

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import runtime_contract as contract  # noqa: E402
import runtime_models as models  # noqa: E402

FED = {
    "two_inputs": (
        models.two_inputs(),
        (Feed(input="motion", features=("x", "y", "z")), Feed(input="heat", features=("t",))),
    ),
    "counter": (
        models.counter(),
        (Feed(input="x", features=("x",)), Feed(input="sum_in", state_of="sum_out")),
    ),
    "gru": (
        models.GRU,
        (Feed(input="x", features=("a", "b", "c")), Feed(input="h_in", state_of="h_out")),
    ),
}
WAKE_WORDS = ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")


STEPS = 16
"""Of the 256 that an output of 8 bits has: XNNPACK's kernels lie up to 12 from TFLite's own."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder each: <runtime>/<name>/{model, manifest.json}."""
    root = tmp_path_factory.mktemp("cases")

    def store(runtime: str, name: str, model: bytes, manifest) -> None:
        at = root / runtime / name
        at.mkdir(parents=True)
        (at / "model").write_bytes(model)
        (at / "manifest.json").write_bytes(manifest.canonical())

    bench = bench_model()
    store("onnx", "mlp", bench.onnx, bench.manifest)
    for name, (model, feeds) in FED.items():
        manifest = package(model, name, "1", ManifestDraft(feeds=feeds))
        store("onnx", name, model, manifest)
    for name in WAKE_WORDS:
        model = (models.wake_words() / f"{name}.tflite").read_bytes()
        inputs, outputs = models.heard(name)
        golden = Golden(inputs=inputs.tolist(), outputs=outputs.tolist(), tolerance=STEPS / 256)
        draft = ManifestDraft(labels=("other", name), golden=golden)
        store("tflite", name, model, package(model, name, "1", draft))
    return root


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("runtime", "name"),
    [("onnx", "mlp"), *(("onnx", name) for name in FED), *(("tflite", w) for w in WAKE_WORDS)],
)
def test_contract(cases: Path, runtime: str, name: str, check) -> None:
    check(contract.case(runtime_named(runtime), cases / runtime / name))


def test_the_contract_holds_with_tflite_runtime(cases: Path, tmp_path: Path) -> None:
    """It needs numpy 1, so it gets a venv of its own; one at EDGELOOP_TFLITE_VENV is used."""
    given = os.environ.get("EDGELOOP_TFLITE_VENV")
    venv = Path(given) if given else tmp_path / "venv"
    if given is None:
        wanted = ["tflite-runtime==2.14.0", "numpy<2", "pydantic>=2.10,<3"]
        made = subprocess.run([sys.executable, "-m", "venv", venv], check=False).returncode == 0
        if not made or subprocess.run([venv / "bin/pip", "install", "-q", *wanted]).returncode:
            pytest.skip("no wheels of tflite-runtime and numpy 1 to be had for this Python")
    sources = [Path(module.__file__).parents[1] for module in (edgeloop_agent, edgeloop_protocol)]
    ran = subprocess.run(
        [venv / "bin/python", HERE / "runtime_contract.py", cases / "tflite"],
        env={"PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "tflite-runtime 2.14.0"


def test_runtimes_are_found_by_their_entry_points() -> None:
    assert {"onnx", "tflite"} <= set(plugins.names(plugins.RUNTIMES))


@pytest.mark.parametrize("name", WAKE_WORDS)
def test_what_is_compared_with_a_wake_words_own_package_is_not_one_number(name: str) -> None:
    """The golden outputs above are that package's: a different TFLite, on the same features."""
    _, outputs = models.heard(name)
    assert len({likely for _, likely in outputs.tolist()}) >= 4


@pytest.mark.parametrize("name", WAKE_WORDS)
def test_what_a_wake_word_is_fed_is_what_its_own_package_feeds_it(cases: Path, name: str) -> None:
    """To the bit, where the kernels are the same: TFLite's own instead of XNNPACK's."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    found = contract.case(runtime_named("tflite"), cases / "tflite" / name)
    feeder, (spec,) = Feeder.of(found.manifest), found.manifest.outputs
    interpreter = Interpreter(
        model_content=found.model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    inputs, expected = models.heard(name)
    for row, wanted in zip(inputs, expected, strict=True):
        (tensor,) = feeder.tensors(row[None]).values()
        interpreter.set_tensor(taken["index"], tensor)
        interpreter.invoke()
        told = scores(interpreter.get_tensor(given["index"]), spec, 2)[0]
        assert told.tolist() == wanted.tolist()
