"""What every runtime of the runner does, as plain checks: they also run in a Python of another
venv, which has no pytest: `python runtime_contract.py NAME CASES_DIRECTORY`.

A case is a folder with `model` and `manifest.json`, made by the controller's packaging, whose
golden examples came out of another process.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.runtimes import Runtime, Session
from edgeloop_protocol.feeding import Feeder, scores
from edgeloop_protocol.manifest import Manifest, parse_manifest


@dataclass
class Case:
    runtime: Runtime
    model: bytes
    manifest: Manifest

    def load(self) -> Session:
        return self.runtime.load(self.model, self.manifest)

    def answers(self, session: Session) -> np.ndarray:
        """Of the golden inputs, one after the other, as the runner feeds them."""
        feeder, found = Feeder.of(self.manifest), []
        (spec,) = (s for s in self.manifest.outputs if s.name == self.manifest.scores_output)
        wanted = [spec.name, *feeder.state_outputs]
        for row in self.manifest.golden.inputs:
            tensors = feeder.tensors(np.asarray([row], dtype=np.float32))
            raw = session.run(feeder.with_state(tensors), wanted)
            feeder.keep(dict(zip(wanted[1:], raw[1:], strict=True)))
            found.append(scores(raw[0], spec, len(self.manifest.labels))[0])
        return np.stack(found)


def case(runtime: Runtime, directory: Path) -> Case:
    return Case(
        runtime,
        (directory / "model").read_bytes(),
        parse_manifest((directory / "manifest.json").read_bytes()),
    )


def gives_the_golden_outputs(case: Case) -> None:
    golden = case.manifest.golden
    assert np.abs(case.answers(case.load()) - np.asarray(golden.outputs)).max() <= golden.tolerance


def says_its_inputs_and_outputs_as_the_manifest_does(case: Case) -> None:
    session = case.load()
    for found, declared in (
        (session.inputs, case.manifest.inputs),
        (session.outputs, case.manifest.outputs),
    ):
        assert [s.name for s in found] == [s.name for s in declared]
        assert [s.dtype for s in found] == [s.dtype for s in declared]
        assert [s.quantisation for s in found] == [s.quantisation for s in declared]
        assert [len(s.shape) for s in found] == [len(s.shape) for s in declared]


def forgets_at_a_reset(case: Case) -> None:
    session = case.load()
    first = case.answers(session)
    session.reset()
    np.testing.assert_array_equal(case.answers(session), first)
    if case.manifest.stateful and not case.manifest.feeds:
        assert (case.answers(session) != first).any(), "without a reset it remembers"


def gives_arrays_of_the_callers_own(case: Case) -> None:
    session, feeder = case.load(), Feeder.of(case.manifest)
    rows = np.asarray(case.manifest.golden.inputs, dtype=np.float32)
    name = case.manifest.scores_output
    (kept,) = session.run(feeder.with_state(feeder.tensors(rows[:1])), [name])
    copy = kept.copy()
    for row in rows[1:]:
        session.run(feeder.with_state(feeder.tensors(row[None])), [name])
    np.testing.assert_array_equal(kept, copy)


def runs_bound_arrays_in_place(case: Case) -> None:
    session, feeder = case.load(), Feeder.of(case.manifest)
    name = case.manifest.scores_output
    rows = [feeder.with_state(feeder.tensors(np.asarray([row], np.float32)))
            for row in case.manifest.golden.inputs]  # fmt: skip
    expected = [session.run(row, [name])[0] for row in rows]
    session.reset()
    held = {key: np.ascontiguousarray(array) for key, array in rows[0].items()}
    into = np.empty_like(expected[0])
    run = session.bind(held, name, into)
    for row, wanted in zip(rows, expected, strict=True):
        for key, array in row.items():
            held[key][...] = array
        run()
        np.testing.assert_array_equal(into, wanted)


def refuses_an_output_of_another_form(case: Case) -> None:
    session, feeder = case.load(), Feeder.of(case.manifest)
    name = case.manifest.scores_output
    row = np.asarray(case.manifest.golden.inputs[:1], dtype=np.float32)
    feeds = {key: np.ascontiguousarray(array)
             for key, array in feeder.with_state(feeder.tensors(row)).items()}  # fmt: skip
    (found,) = session.run(feeds, [name])
    wide = np.empty((1, found.shape[1] + 3), dtype=found.dtype)
    _raises(lambda: session.bind(feeds, name, wide)())


def refuses_what_is_no_model(case: Case) -> None:
    for junk in (b"", b"\x00" * 64, b"not a model"):
        _raises(lambda junk=junk: case.runtime.load(junk, case.manifest))


def refuses_a_truncated_model(case: Case) -> None:
    cut = case.model[: len(case.model) // 3]
    _raises(lambda: case.runtime.load(cut, case.manifest))


def refuses_an_input_of_another_shape_and_goes_on(case: Case) -> None:
    session, feeder = case.load(), Feeder.of(case.manifest)
    row = np.asarray(case.manifest.golden.inputs[:1], dtype=np.float32)
    feeds = feeder.with_state(feeder.tensors(row))
    wrong = {key: np.zeros((1, 7, 7, 7), dtype=array.dtype) for key, array in feeds.items()}
    _raises(lambda: session.run(wrong, [case.manifest.scores_output]))
    session.run(feeds, [case.manifest.scores_output])


def takes_several_at_once_where_the_batch_is_free(case: Case) -> None:
    feeder = Feeder.of(case.manifest)
    if not feeder.takes_several or case.manifest.stateful:
        return
    rows = np.asarray(case.manifest.golden.inputs, dtype=np.float32)
    (found,) = case.load().run(feeder.tensors(rows), [case.manifest.scores_output])
    np.testing.assert_allclose(found, case.manifest.golden.outputs, atol=1e-5)


def says_what_it_is(case: Case) -> None:
    info = case.runtime.probe()
    assert info.name == case.manifest.artifact.runtime
    assert info.version


CHECKS = (
    gives_the_golden_outputs,
    says_its_inputs_and_outputs_as_the_manifest_does,
    forgets_at_a_reset,
    gives_arrays_of_the_callers_own,
    runs_bound_arrays_in_place,
    refuses_an_output_of_another_form,
    refuses_what_is_no_model,
    refuses_a_truncated_model,
    refuses_an_input_of_another_shape_and_goes_on,
    takes_several_at_once_where_the_batch_is_free,
    says_what_it_is,
)


def _raises(call) -> None:
    try:
        call()
    except ModelLoadError:
        return
    raise AssertionError("no ModelLoadError")


def main(cases: Path) -> None:
    """All TFLite cases by whichever package provides TFLite here; prints what that is.

    But for the truncated model: tflite-runtime verifies no flatbuffer, and crashes.
    """
    from edgeloop_agent.runner.runtime_tflite import TfliteRuntime

    for directory in sorted(cases.iterdir()):
        for check in CHECKS:
            if check is not refuses_a_truncated_model:
                check(case(TfliteRuntime(), directory))
    print(TfliteRuntime().probe().version)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
