"""Objects in, versions out: what the file says, what the manifest says, and what is refused."""

import hashlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgeloop import ApiError, Fleet, MissingExtraError, ModelError
from edgeloop.example import read_example
from edgeloop.publishing import export, publish

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 3)).astype(np.float32)
Y = np.where(ROWS[:, 0] + ROWS[:, 1] > 0, "walk", "still")
NAMES = ("ax", "ay", "gx")


@pytest.fixture(scope="module")
def classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, Y)


def answered(content: bytes, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: rows})
    return output


def test_a_scikit_learn_pipeline_in_one_call(fleet: Fleet, classifier: Any) -> None:
    table = pa.table({name: ROWS[:, at] for at, name in enumerate(NAMES)} | {"label": Y})
    published = fleet.publish(
        classifier,
        name="walk",
        version="1",
        example=table,
        groups=[f"g{n % 4}" for n in range(len(ROWS))],
        manifest={"description": "walks", "sensors": {"ax": "accelerometer"}},
    )
    manifest = published.manifest
    assert published.created
    assert manifest.labels == ("still", "walk")
    assert [one.name for one in manifest.features] == list(NAMES)
    assert manifest.features[0].sensor == "accelerometer"
    assert manifest.description == "walks"
    assert manifest.baseline is not None
    assert manifest.baseline.count == 200
    assert manifest.baseline.thresholds is not None
    assert manifest.baseline.thresholds.groups == 4, "the groups came with the rows"
    again = fleet.publish(
        classifier,
        name="walk",
        version="1",
        example=table,
        groups=[f"g{n % 4}" for n in range(len(ROWS))],
        manifest={"description": "walks", "sensors": {"ax": "accelerometer"}},
    )
    assert not again.created, "the same object gives the same bytes"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_file_answers_as_the_estimator_does(classifier: Any) -> None:
    network = MLPClassifier((8,), max_iter=20, random_state=0)
    for estimator in (classifier, network.fit(ROWS, Y == "walk")):
        content = export(estimator, None).content
        given = answered(content, ROWS[:50])
        assert np.allclose(given, estimator.predict_proba(ROWS[:50]), atol=1e-5)
        assert [one.name for one in onnx.load_from_string(content).graph.output] == [
            "probabilities"
        ]


def test_what_the_caller_says_goes_over_what_the_object_says(classifier: Any) -> None:
    class Uploads:
        def upload(self, _kind: Any, _name: str, _version: str, files: dict[str, bytes]) -> Any:
            return tomllib.loads(files["manifest"].decode())

    def draft(**said: Any) -> Any:
        return publish(Uploads(), classifier, "walk", "1", ROWS[:2], **said)  # type: ignore

    assert draft()["labels"] == ["still", "walk"]
    assert draft(manifest={"labels": ["no", "yes"]})["labels"] == ["no", "yes"]
    assert draft(manifest={"labels": ["a", "b"]}, labels=[0, 1])["labels"] == ["0", "1"]


def test_a_search_publishes_its_best(classifier: Any) -> None:
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(ROWS, Y)
    assert export(search, None).draft["labels"] == ["still", "walk"]


def test_onnx_objects_bytes_and_files_are_published_as_they_are(
    fleet: Fleet, tiny_model: Any, tmp_path: Path
) -> None:
    content = tiny_model()
    path = tmp_path / "tiny.onnx"
    path.write_bytes(content)
    for model in (onnx.load_from_string(content), path, str(path)):
        assert export(model, None).content == content
    published = fleet.publish(
        content, name="tiny", version="0", example=ROWS, labels=["still", "walk"]
    )
    assert published.artifact_digest == hashlib.sha256(content).hexdigest()
    shown = fleet.version("tiny", "0").manifest
    assert [one.name for one in shown.features] == ["f0", "f1", "f2"]
    draft = tmp_path / "model.toml"
    draft.write_text('features = ["a", "b", "c"]\nlabels = ["x", "y"]\n')
    published = fleet.publish(path, name="tiny", version="9", example=ROWS[:5], manifest=draft)
    assert [one.name for one in published.manifest.features] == ["a", "b", "c"]
    assert published.manifest.labels == ("x", "y")
    assert published.manifest.baseline is None, "five rows are no baseline"
    with pytest.raises(ApiError, match="published already"):
        fleet.publish(tiny_model(1), name="tiny", version="0", example=ROWS)


def test_the_example_follows_the_order_that_the_estimator_was_fitted_in() -> None:
    table = pa.table({name: ROWS[:, at] for at, name in enumerate(NAMES)})
    example = read_example(table, y=Y).ordered(("gx", "ax", "ay"))
    assert np.array_equal(example.rows[:, 0], ROWS[:, 2])
    read = pa.parquet.read_table(io.BytesIO(example.parquet(("gx", "ax", "ay"))))
    assert read.column_names == ["gx", "ax", "ay", "label"]
    with pytest.raises(ModelError, match="are not the model's features"):
        example.ordered(("gx", "ax"))
    with pytest.raises(ModelError, match="3 columns, and the model 2 features"):
        read_example(ROWS).ordered(("gx", "ax"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LinearRegression().fit(ROWS, ROWS[:, 0]), "LinearRegression has no predict_proba"),
        (LogisticRegression(), "LogisticRegression is not fitted"),
        (object(), "object is no model that can be published"),
    ],
)
def test_what_is_no_model_is_refused_with_a_mend(model: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        export(model, None)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([1.0, 2.0], "shape"),
        ([["a"]], "not of numbers"),
        ([[np.nan]], "missing or infinite"),
    ],
)
def test_an_example_that_is_none(rows: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_example(rows)
    with pytest.raises(ModelError, match="y has 2 entries for 1 rows"):
        read_example([[1.0]], y=["a", "b"])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, classifier: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeloop\[sklearn\]'"):
        export(classifier, None)


def test_the_extras_that_are_named_exist() -> None:
    client = Path(__file__).parents[2] / "client"
    project = tomllib.loads((client / "pyproject.toml").read_text())["project"]
    named = {
        extra
        for source in client.rglob("*.py")
        for extra in re.findall(r'require\("[a-z0-9_.]+", "([a-z]+)"', source.read_text())
    }
    assert named == set(project["optional-dependencies"])
