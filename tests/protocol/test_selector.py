"""The selector grammar: meaning, round trip, and errors that say where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.errors import SelectorError
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Inventory, RuntimeInfo, SlotReported, VersionRef
from edgeloop_protocol.selector import Selector, Term, parse

LABELS = {"site": "berlin", "zone": "a", "spare": "no"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("all", True),
        ("site=berlin", True),
        ("site=paris", False),
        ("site!=paris", True),
        ("colour!=red", True),
        ("site=berlin,zone=a", True),
        ("site=berlin, zone=b", False),
        ("zone in (a, b)", True),
        ("zone not in (a,b)", False),
        ("colour not in (red)", True),
        ("zone", True),
        ("colour", False),
        ("!colour", True),
        ("!zone", False),
        ("device=watch-01", True),
        ("device in (watch-02, watch-03)", False),
        ("device!=watch-01", False),
        ('site="berlin"', True),
    ],
)
def test_meaning(text: str, matches: bool) -> None:
    assert parse(text).matches(Labelled("watch-01", LABELS)) is matches


def test_a_label_called_device_does_not_hide_the_id() -> None:
    assert parse("device=w1").matches(Labelled("w1", {"device": "other"}))


@pytest.mark.parametrize(
    ("text", "position", "wanted"),
    [
        ("", 1, "a label's name"),
        ("site=", 6, "a value"),
        ("site berlin", 6, "a comma"),
        ("site=a,", 8, "a label's name"),
        ("site=a,,b", 8, "a label's name"),
        ("site in a", 9, "a list"),
        ("site in (a", 11, "a comma"),
        ("site in ()", 10, "a value"),
        ("site not (a)", 10, '"in"'),
        ("site=ber;lin", 9, "operator"),
        ('site="ber', 6, "quoted value"),
        ("all, site=a", 1, "a label's name"),
        ("=a", 1, "a label's name"),
        ("model.watch<", 13, "a value"),
        ("memory<=(1)", 9, "a value"),
    ],
)
def test_errors_name_the_position_and_the_mend(text: str, position: int, wanted: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert f"at position {position} expected" in str(caught.value)
    assert wanted in str(caught.value)
    assert "all" in caught.value.hint


def test_an_overlong_selector_is_refused() -> None:
    with pytest.raises(SelectorError, match="limit is 4096"):
        parse("a," * 4096)


keys = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True).filter(
    lambda key: key not in {"all", "in", "not"}
)
values = st.one_of(st.from_regex(r"[a-z0-9_.+-]{1,6}", fullmatch=True), st.text(max_size=6))
terms = st.one_of(
    st.builds(Term, keys, st.lists(values, max_size=3).map(tuple), st.booleans()),
    st.builds(
        Term,
        keys,
        values.map(lambda value: (value,)),
        order=st.sampled_from(["<", "<=", ">", ">="]),
    ),
)


@given(st.lists(terms, max_size=4).map(tuple).map(Selector))
def test_writing_and_parsing_round_trips(selector: Selector) -> None:
    assert parse(str(selector)) == selector


@given(st.text(max_size=30))
def test_any_text_parses_or_raises_a_selector_error(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError:
        return
    assert parse(str(selector)) == selector


@given(keys, values, st.dictionaries(keys, values, max_size=3))
def test_a_term_and_its_negation_disagree(key: str, value: str, labels: dict[str, str]) -> None:
    device = Labelled("d", labels)
    found = Selector((Term(key, (value,)),)).matches(device)
    assert Selector((Term(key, (value,), negated=True),)).matches(device) is not found


WATCH = Labelled(
    "w1",
    {"model": "x", "floor": "9"},
    online=True,
    quarantine="smells of smoke",
    inventory=Inventory(
        agent_version="0.3.0",
        architecture="arm64",
        python="3.11.2",
        runtimes=(RuntimeInfo(name="onnx", version="1"), RuntimeInfo(name="tflite", version="2")),
        sensors=("gyroscope",),
        memory_bytes=1,
        memory_total_bytes=512_000_000,
        disk_free_bytes=2**30,
        cpu_count=2,
    ),
    slots={
        "main": SlotReported(
            slot="main",
            state=SlotState.COMMITTED,
            champion=VersionRef(name="watch", version="2.9", manifest_digest="a" * 64),
        ),
        "spare": SlotReported(slot="spare", state=SlotState.IDLE),
    },
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("arch=aarch64", True),
        ("arch in (arm64, x86_64)", True),
        ("arch=x86_64", False),
        ("runtime=tflite, runtime=onnx", True),
        ("runtime!=tflite", False),
        ("sensor=gyroscope, !camera", True),
        ("sensor=camera", False),
        ("memory>=512MB", True),
        ("memory>512MB", False),
        ("memory<512MiB", True),
        ("disk=1073741824", True),
        ("disk<=1GiB", True),
        ("cpus>1, cpus<10", True),
        ("online, online=yes", True),
        ("quarantine", True),
        ("!quarantine", False),
        ("model.watch<2.10", True),
        ("model.watch<2.9", False),
        ("model.watch>=2.9", True),
        ("model.watch<2.9.1", True),
        ("model.other<9", False),
        ("model.other!=9", True),
        ("slot.main=watch@2.9", True),
        ("slot.spare", False),
        ("model=x, floor<10", True),
        ("agent>=0.2, python<3.12", True),
        ("agent<0.3.0-rc1", False),
    ],
)
def test_what_is_built_in(text: str, matches: bool) -> None:
    assert parse(text).matches(WATCH) is matches


def test_a_device_that_is_little_known_has_nothing() -> None:
    for key in ("arch", "runtime", "sensor", "memory", "disk", "cpus", "online", "quarantine"):
        assert parse(f"!{key}").matches(Labelled("d"))
