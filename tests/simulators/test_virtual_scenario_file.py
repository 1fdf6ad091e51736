"""Scenario files of virtual worlds: read whole, and what is wrong is told by line, all at once."""

import re
from pathlib import Path

import pytest

from edgeloop_protocol.schemas import schema_text
from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.virtual.scenario.build import build
from edgeloop_simulators.virtual.scenario.file import VirtualScenario
from edgeloop_simulators.virtual.scenario.fleet_tables import ClassTable
from edgeloop_simulators.virtual.scenario.load import (
    find_virtual,
    load_virtual,
    parse_virtual,
    scenario_of,
    shipped_virtual,
)
from edgeloop_simulators.virtual.scenario.schemas import FILE
from edgeloop_simulators.virtual.spec.world import DailyWindow, Publish, StartRollout

ROOT = Path(__file__).parents[2]
MINI = (Path(__file__).parent / "mini.toml").read_text(encoding="utf-8")
HINT = re.compile(r"#:schema (\S+)")


def told(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as raised:
        parse_virtual(text, "s.toml", Path())
    return str(raised.value).splitlines()


@pytest.mark.parametrize("path", shipped_virtual().values(), ids=lambda path: path.stem)
def test_every_shipped_scenario_is_good_and_points_at_its_schema(path: Path) -> None:
    loaded = load_virtual(path)
    hint = HINT.match(loaded.text)
    assert hint, "the first line is a #:schema hint"
    assert (path.parent / hint[1]).resolve() == ROOT / "docs/spec/schemas" / FILE
    assert loaded.scenario.shows


def test_the_schema_is_that_of_the_code() -> None:
    committed = (ROOT / "docs/spec/schemas" / FILE).read_text(encoding="utf-8")
    assert committed == schema_text(VirtualScenario), "run `make schemas`"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("devices = 2", "devices = 0", r"s.toml:12: sites\[0\].devices: .*greater than 0 .given 0"),
        ("devices = 2", 'devices = "2 or 3"', r"s.toml:12: sites\[0\].devices: .*integer"),
        ("devices = 2", "devices = 2\ndevises = 3", r":13: .*unknown key; did you mean 'devices'"),
        ('class = "old"', 'class = "odl"', r":17: sites\[1\].class: no class 'odl'.*mean 'old'"),
        ('accuracy = "90%"', 'accuracy = "109%"', r":22: models\[0\].accuracy: .*\"100%\""),
        (
            'waves = ["100%"]',
            'waves = ["5", "140%"]',
            r":33: steps\[0\].waves: wave 2: 140% is not",
        ),
        (
            'model = "m@2"',
            'model = "m@3"',
            r":39: steps\[1\].model: no model 'm@3'; known: m@1, m@2",
        ),
        ('target = "hall-1"', 'target = "hall-3"', r":47: .*no device 'hall-3'; write"),
        ('target = "hall-1"', 'target = "site:hal"', r":47: .*no site 'hal'.*mean 'hall'"),
        ('at = "10 min"', 'at = "10 minutes"', r":45: faults\[0\].at: write seconds, or a text"),
        (
            'duration = "3 min"',
            'duration = "3 h"',
            r":46: .*ends at 11400 s, after the world's end",
        ),
        ('at = "20 min"', 'at = "51 min"', r":38: steps\[1\].at: at 3060 s the world has ended"),
        ('name = "hall"', "", r":10: sites\[0\].name: missing; add it"),
        (
            'kind = "partition"',
            'kind = "model_crash"',
            r":43: faults\[0\].model: missing; say which",
        ),
        ('kind = "partition"', 'kind = "controller_kill"', r":47: .*befalls the controller alone"),
        ('name = "m@2"', 'name = "m@1"', r":26: models\[1\].name: 'm@1' is there already"),
        (
            'goes = "crash"',
            'goes = "nan"',
            r":28: models\[1\].goes_on: only crash, hang, self_test",
        ),
        ('do = "roll_out"\nat', 'do = "roll_down"\nat', r":36: steps\[1\]: .*'roll_down'"),
        (
            "soak_s = 10, probation = { min_s = 60",
            "soak = 10, probation = { min_s = 60",
            r":41: .*mean",
        ),
        (
            '[[sites]]\nname = "hall"',
            '[data]\nkind = "watch"\ntrain_people = [1]\ndevice_people = [2]\n'
            '[[sites]]\nname = "hall"',
            r":24: models\[0\].kind: a synthetic model answers synthetic data only",
        ),
        (
            "[agent]",
            '[[drift]]\nat = 1\nphase = "before"\n'
            '[[drift]]\nat = 2\nphase = "before"\nover = 9\n[agent]',
            r":55: drift\[1\].over: every change takes as long",
        ),
        ("[agent]", '[[expect.rollouts]]\nmodel = "m@9"\n[agent]', r":50: .*no model 'm@9'"),
        (
            "[agent]",
            '[[expect.drift]]\ncause = "world_changed"\n[agent]',
            r":49: .*watch does not run",
        ),
    ],
)
def test_what_is_wrong_is_told_by_its_line(old: str, new: str, says: str) -> None:
    assert old in MINI
    assert re.search(says, "\n".join(told(MINI.replace(old, new, 1))))


def test_all_problems_are_told_at_once_and_in_order() -> None:
    wrong = MINI.replace("devices = 2", "devices = 0").replace('class = "old"', 'class = "odl"')
    lines = told(
        wrong.replace('accuracy = "90%"', "accuracy = true").replace('"m@2"\nwav', '"x@1"\nwav')
    )
    assert [int(line.split(":")[1]) for line in lines] == [12, 16, 17, 22, 39, 47]


def test_what_is_no_toml_is_told_with_its_place() -> None:
    assert told('world = "virtual"\n[data\n')[0].startswith("s.toml:2: not TOML: ")
    assert told('world = "virtual"\n[data')[0].startswith("s.toml:2: not TOML: ")


def test_a_file_that_is_named_must_be_there() -> None:
    text = MINI.replace(
        'kind = "synthetic"\nname = "m@1"\naccuracy = "90%"',
        'kind = "onnx"\nname = "m@1"\nfile = "m.onnx"',
    )
    text = text.replace("[[classes]]", '[data]\nkind = "machines"\n[[classes]]', 1)
    text = re.sub(r'\[\[models\]\]\nkind = "synthetic"\nname = "m@2"[^\[]*goes_on = .*\n', "", text)
    text = re.sub(
        r'\[\[steps\]\]\ndo = "roll_out"\nat = "20 min"[^\[]*\["100%"\]\nterms.*\n', "", text
    )
    (problem,) = told(text)
    assert re.search(r"models\[0\].file: no file .*m\.onnx", problem)


def test_people_write_times_sizes_shares_and_hours() -> None:
    kind = ClassTable.model_validate(
        {
            "name": "x",
            "memory": "128 MiB",
            "disk": 5000,
            "link": {"latency": "600 ms", "bytes_per_s": 1000, "loss": "3%"},
            "connected": ["22:30-04:00"],
        }
    )
    assert (kind.memory, kind.disk) == (128 << 20, 5000)
    assert (kind.link.latency, kind.link.loss) == (0.6, 0.03)
    assert kind.connected == (DailyWindow(22.5, 4.0),)
    assert ClassTable(name="y", link="2g").link.bytes_per_s == 4000.0


def test_a_version_is_published_just_before_its_first_rollout(tmp_path: Path) -> None:
    again = MINI + '\n[[steps]]\ndo = "roll_out"\nat = "30 min"\nmodel = "m@1"\n'
    built = build(parse_virtual(again, "s.toml", Path()), 0, tmp_path)
    kinds = [(type(step), step.at_s) for step in built.spec.script]
    assert kinds == [
        (Publish, 0.0),
        (StartRollout, 0.0),
        (Publish, 1200.0),
        (StartRollout, 1200.0),
        (StartRollout, 1800.0),
    ]
    assert built.is_bad("m@2", "aarch64")
    assert not built.is_bad("m@2", "x86_64")
    assert not built.is_bad("m@1", "aarch64")


def test_drawn_faults_depend_on_the_seed_alone(tmp_path: Path) -> None:
    loaded = parse_virtual(MINI + "\n[fault_rates]\ndrop = 4\npower_cut = 2\n", "s", Path())
    once = build(loaded, 3, tmp_path).faults
    assert len(once) == 7
    assert once == build(loaded, 3, tmp_path).faults != build(loaded, 4, tmp_path).faults


def test_a_document_of_no_file_is_checked_alike() -> None:
    with pytest.raises(ScenarioError, match=r"(?m)^sites\[0\]\.devices: "):
        scenario_of({"world": "virtual", "sites": [{"name": "a", "devices": -1}]}, Path())


def test_a_virtual_file_is_told_from_the_demos(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a.toml", tmp_path / "b.toml"
    ours.write_text(MINI)
    theirs.write_text('title = "x"')
    assert find_virtual(str(ours)) == ours
    assert find_virtual(str(theirs)) is None
    assert find_virtual("watch") is None
    assert find_virtual("healthy-rollout") == shipped_virtual()["healthy-rollout"]
