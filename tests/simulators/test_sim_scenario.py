"""Scenario files: what is wrong is named by key and file, before anything starts."""

from pathlib import Path

import pytest

from edgeloop.toml_text import toml_text
from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.scenario import load_scenario, shipped

GOOD = """
title = "t"
[data]
kind = "watch"
train_people = [2]
device_people = [1]
[training]
script = "train.py"
model = "m"
[[steps]]
do = "publish_first"
[[steps]]
do = "start_devices"
[[steps]]
do = "roll_out_first"
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "s.toml"
    path.write_text(text)
    return load_scenario(str(path), environment={})


def test_a_good_one_is_read_with_its_directory(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.resolve(loaded.scenario.training.script) == tmp_path.resolve() / "train.py"
    assert loaded.resolve(Path("/x/y")) == Path("/x/y")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_scenario_is_good(name: str) -> None:
    loaded = load_scenario(name, environment={})
    assert loaded.resolve(loaded.scenario.training.script).is_file()


def test_the_example_is_good() -> None:
    path = Path(__file__).parents[2] / "examples" / "own-data" / "scenario.toml"
    assert load_scenario(str(path), environment={}).scenario.data.kind == "tabular"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'title = "t"',
            'title = "t"\nspeed = 3',
            r"s\.toml: speed: unknown key; known here: .*title",
        ),
        ('title = "t"', "", r"s\.toml: title: missing; add it"),
        ('kind = "watch"', 'kind = "radio"', r"data: .*'watch', 'tabular'"),
        ("device_people = [1]", "device_people = [2]", r"people \[2\] stand in train_people and"),
        ('do = "start_devices"', 'do = "dance"', r"steps\.1: .*'dance'"),
        ('do = "publish_first"\n', "", r"steps\.0: "),
        ('[[steps]]\ndo = "publish_first"\n', "", "'roll_out_first' needs publish_first before it"),
        ('model = "m"', 'model = "m"\ntimeout_s = -1', r"training\.timeout_s: .*greater than 0"),
        ("[data]", "[data", r"s\.toml is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioError, match=says):
        load(tmp_path, GOOD.replace(old, new))


def test_an_unknown_scenario_names_those_that_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"give a TOML file, or one of: .*watch"):
        load_scenario("wtch", environment={})


def test_written_toml_is_read_back() -> None:
    import tomllib

    document = {
        "name": 'with "quotes" and \\ and ü',
        "count": 3,
        "share": 0.5,
        "on": True,
        "none": None,
        "list": ["a", "b"],
        "table": {"key.with dots": 1, "inner": {"deep": [1, 2]}},
        "empty": {},
    }
    read = tomllib.loads(toml_text(document))
    assert read == {key: value for key, value in document.items() if key != "none"}
