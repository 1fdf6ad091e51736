"""The pure plan of control files, and the files' own errors."""

import json
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop_controller.control.export import devices_toml, policies_toml, rollouts_toml
from edgeloop_controller.control.files import ControlFile, load_directory
from edgeloop_controller.control.plan import (
    Change,
    DeviceState,
    PolicyState,
    RolloutState,
    State,
    plan,
)
from edgeloop_controller.control.schemas import FILE, control_schema_text
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms
from edgeloop_protocol.errors import ConfigError

ROOT = Path(__file__).parents[3]


def _after(state: State, changes: Sequence[Change]) -> State:
    """What a controller makes of the calls."""
    devices = dict(state.devices)
    rollouts = {(one.slot, one.selector): one for one in state.rollouts}
    policies = dict(state.policies)
    for call in (change.call for change in changes if change.call is not None):
        if call.path == "/rollouts":
            body = call.body
            terms = RolloutTerms.model_validate(body["terms"])
            version, waves = f"{body['name']}@{body['version']}", tuple(body["waves"])
            started = RolloutState(
                99, version, body["selector"], waves, body["slot"], "running", terms
            )
            rollouts[started.slot, started.selector] = started
            continue
        if call.path.startswith("/retraining/policies/"):
            name = call.path.rpartition("/")[2]
            policies.pop(name, None)
            if call.method == "PUT":
                policies[name] = PolicyState(PolicyTerms.model_validate(call.body), "api")
            continue
        _, _, name, what = call.path.split("/")
        device = devices[name]
        if what == "labels":
            labels = {**device.labels_set, **call.body["labels"]}
            kept = {key: value for key, value in labels.items() if value is not None}
            devices[name] = DeviceState(kept, device.quarantine)
        else:
            devices[name] = DeviceState(device.labels_set, call.body["reason"].strip())
    return State(devices, tuple(rollouts.values()), policies)


_IDS = st.sampled_from(["a", "b", "c"])
_TEXTS = st.sampled_from(["", "x", 'y"\\\x7f\n', " padded "])
_LABELS = st.dictionaries(_IDS, _TEXTS)
_TERMS = st.builds(
    lambda soak, compared, probation, at, hours, shadow: RolloutTerms.model_validate(
        {
            "soak_s": soak,
            "min_compared": compared,
            "probation": {"min_s": probation},
            "schedule": {"starts_at": at, "maintenance": hours},
            "shadow": shadow,
        }
    ),
    st.sampled_from([0.0, 30.0, 0.1]),
    st.sampled_from([0, 50, 200]),
    st.sampled_from([2.0, 5.0]),
    st.sampled_from([None, 1.8e9]),
    st.sampled_from([[], ["22:00-05:00", "Sat,Sun 00:00-24:00"]]),
    st.sampled_from([None, {"devices": 3}, {"devices": 5, "budget": {"cpu_fraction": 0.5}}]),
)
_VERSIONS, _SELECTORS = st.sampled_from(["m@1", "m@2"]), st.sampled_from(["all", "site=lab"])
_STATUSES = st.sampled_from(["queued", "running", "paused", "halted", "aborted", "done"])
_POLICIES = st.builds(
    lambda inputs, on, gain, waves, terms: PolicyTerms.model_validate(
        {
            "model": "m",
            "script": "m/train.py",
            "inputs": inputs,
            "on": on,
            "every_s": 3600.0 if "schedule" in on else None,
            "acceptance": {"min_accuracy_gain": gain},
            "rollout": {"waves": waves, "terms": terms},
        }
    ),
    st.dictionaries(_IDS, _TEXTS),
    st.sampled_from([["drift"], ["labels", "schedule"]]),
    st.sampled_from([0.0, -0.5]),
    st.sampled_from([[], ["1", "100%"]]),
    _TERMS,
)
_STATES = st.builds(
    State,
    st.dictionaries(_IDS, st.builds(DeviceState, _LABELS, _TEXTS.map(str.strip))),
    st.lists(
        st.builds(
            RolloutState,
            st.integers(1, 9),
            _VERSIONS,
            _SELECTORS,
            st.just(("1", "100%")),
            st.just("main"),
            _STATUSES,
            _TERMS,
        ),
        unique_by=(lambda one: one.selector, lambda one: one.id),
    ),
    st.dictionaries(
        _IDS, st.builds(PolicyState, _POLICIES, st.sampled_from(["file", "api"])), max_size=2
    ),
)
_FILES = st.builds(
    lambda devices, rollouts, policies: ControlFile.model_validate(
        {
            "devices": devices,
            "rollouts": {one["selector"]: one for one in rollouts},
            "policies": policies,
        }
    ),
    st.dictionaries(
        _IDS, st.fixed_dictionaries({"labels": _LABELS, "quarantine": st.none() | _TEXTS})
    ),
    st.lists(
        st.fixed_dictionaries(
            {
                "version": _VERSIONS,
                "selector": _SELECTORS,
                "waves": st.just(["1", "100%"]),
                "if_busy": st.sampled_from(["refuse", "queue", "preempt"]),
                "terms": _TERMS,
            }
        )
    ),
    st.dictionaries(_IDS, _POLICIES, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(_FILES, _STATES, st.booleans(), st.lists(_SELECTORS))
def test_what_was_applied_is_not_planned_again(
    files: ControlFile, state: State, prune: bool, restart: list[str]
) -> None:
    left = plan(files, _after(state, plan(files, state, prune, restart)), prune)
    assert [change for change in left if change.call is not None] == []


@settings(max_examples=60, deadline=None)
@given(_STATES)
def test_what_is_exported_differs_in_nothing(state: State) -> None:
    text = f"{devices_toml(state)}\n{rollouts_toml(state)}\n{policies_toml(state)}"
    files = ControlFile.model_validate(tomllib.loads(text))
    assert plan(files, state, prune=True) == []


def _rollout(status: str, version: str = "m@1") -> State:
    terms, waves = RolloutTerms(), ("1", "5%", "25%", "100%")
    return State({}, [RolloutState(7, version, "all", waves, "main", status, terms)])


def test_a_policy_that_is_a_file_of_the_controllers_own_is_left_to_a_person() -> None:
    files = ControlFile.model_validate({"policies": {"p": {"model": "m", "script": "t.py"}}})
    own = PolicyTerms(model="m", script="/opt/t.py")
    (found,) = plan(files, State(policies={"p": PolicyState(own, "file")}), prune=True)
    assert found.call is None
    assert plan(ControlFile(), State(policies={"p": PolicyState(own, "file")}), prune=True) == []
    (removed,) = plan(ControlFile(), State(policies={"p": PolicyState(own, "api")}), prune=True)
    assert removed.call is not None
    assert removed.call.method == "DELETE"
    assert plan(ControlFile(), State(policies={"p": PolicyState(own, "api")})) == []


@pytest.mark.parametrize("status", ["halted", "aborted"])
def test_what_was_stopped_is_started_again_only_on_demand(status: str) -> None:
    files = ControlFile.model_validate({"rollouts": {"r": {"version": "m@1"}}})
    (found,) = plan(files, _rollout(status))
    assert found.call is None
    assert "--restart r" in found.hint
    (again,) = plan(files, _rollout(status), restart=["r"])
    assert again.call is not None
    changed = ControlFile.model_validate(
        {"rollouts": {"r": {"version": "m@1", "terms": {"soak_s": 9}}}}
    )
    assert plan(changed, _rollout(status))[0].call is not None


def test_a_running_rollout_is_never_ended_silently() -> None:
    files = ControlFile.model_validate({"rollouts": {"r": {"version": "m@2"}}})
    (found,) = plan(files, _rollout("running"))
    assert found.call is None
    assert "rollout abort 7" in found.hint
    assert plan(files, _rollout("done"))[0].call is not None


def test_nothing_is_taken_away_without_prune() -> None:
    files = ControlFile.model_validate({"devices": {"a": {"labels": {"site": "lab"}}}})
    state = State(
        {"a": DeviceState({"site": "lab", "x": "1"}, "why"), "b": DeviceState({"y": "2"}, "")}
    )
    assert plan(files, state) == []
    calls = [change.call for change in plan(files, state, prune=True)]
    assert [call.body for call in calls if call] == [
        {"labels": {"x": None}},
        {"reason": ""},
        {"labels": {"y": None}},
    ]


def test_a_time_is_a_toml_datetime_with_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    start = '[rollouts.r]\nversion = "m@1"\nterms.schedule.starts_at = '
    path.write_text(f"{start}2026-12-24T22:00:00+01:00\n")
    at = load_directory(tmp_path).rollouts["r"].terms.schedule.starts_at
    assert at == datetime(2026, 12, 24, 21, tzinfo=UTC).timestamp()
    path.write_text(f"{start}2026-12-24T22:00:00\n")
    with pytest.raises(ConfigError, match=r"r\.toml: rollouts\.r\.terms: .*has no offset"):
        load_directory(tmp_path)


def test_the_example_of_the_docs_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs/control-as-files.md").read_text(encoding="utf-8")
    (tmp_path / "f.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    files = load_directory(tmp_path)
    assert files.devices["watch-3"].labels == {"site": "lab"}
    assert files.rollouts["watch-to-the-lab"].terms.schedule.max_unavailable == "10%"


FLEETS = """
[fleets.lab]
selector = "site=lab, !quarantine"
[fleets.every]
selector = "all"
"""


@pytest.mark.parametrize(
    ("fleet", "selector", "given"),
    [
        ("lab", None, "site=lab, !quarantine"),
        ("lab", "memory>=64MB", "site=lab, !quarantine, memory>=64MB"),
        ("every", "site=a", "site=a"),
        ("every", None, "all"),
        (None, "site=a", "site=a"),
    ],
)
def test_a_fleet_is_a_selector_under_a_name(
    tmp_path: Path, fleet: str | None, selector: str | None, given: str
) -> None:
    (tmp_path / "fleets.toml").write_text(FLEETS)
    lines = ["[rollouts.r]", 'version = "watch@3"']
    lines += [f'fleet = "{fleet}"'] if fleet else []
    lines += [f'selector = "{selector}"'] if selector else []
    (tmp_path / "rollouts.toml").write_text("\n".join(lines))
    files = load_directory(tmp_path)
    assert files.rollouts["r"].selector == given
    (change,) = plan(files, State())
    assert change.call is not None
    assert change.call.body["selector"] == given
    assert "fleet" not in change.call.body


def test_a_fleet_that_is_not_there_or_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        '[rollouts.r]\nversion = "watch@3"\nfleet = "labs"\n[fleets.lab]\nselector="a=b"'
    )
    with pytest.raises(
        ConfigError, match=r"rollouts.r: no fleet 'labs' in these files; there: lab"
    ):
        load_directory(tmp_path)
    path.write_text('[fleets.lab]\nselector="site=="')
    with pytest.raises(ConfigError, match=r"a.toml: fleets.lab.selector: "):
        load_directory(tmp_path)


def test_two_rollouts_of_one_fleet_are_refused(tmp_path: Path) -> None:
    rollouts = "".join(f'[rollouts.{n}]\nversion = "watch@3"\nfleet = "lab"\n' for n in "ab")
    (tmp_path / "a.toml").write_text(FLEETS + rollouts)
    with pytest.raises(ConfigError, match="has the slot and the selector of"):
        load_directory(tmp_path)


def test_a_device_stands_in_one_file_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text('[devices."watch-3"]\n')
    with pytest.raises(ConfigError, match=r"two\.toml: devices\.watch-3 stands in .*one\.toml"):
        load_directory(tmp_path)


def test_two_rollouts_of_one_slot_and_selector_are_refused(tmp_path: Path) -> None:
    both = '[rollouts.r]\nversion = "m@1"\n[rollouts.s]\nversion = "m@2"\n'
    (tmp_path / "f.toml").write_text(both)
    with pytest.raises(ConfigError, match=r"f\.toml: rollouts\.s has the slot .* of r"):
        load_directory(tmp_path)


def test_the_schema_is_that_of_the_code() -> None:
    committed = (ROOT / "docs/spec/schemas" / FILE).read_text(encoding="utf-8")
    assert committed == control_schema_text(), "run `make schemas`"
    assert "date-time" in json.dumps(json.loads(committed)["$defs"]["Schedule"])
