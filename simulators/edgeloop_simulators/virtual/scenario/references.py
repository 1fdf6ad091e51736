"""What one table of a scenario says of another: names that must exist, times that must fit.

Invariant: reads the document as tomllib gave it and passes over what is of a wrong type, so that
these problems are told together with those of the models.
"""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from edgeloop_simulators.toml_lines import Path
from edgeloop_simulators.virtual.scenario.fleet_tables import DEVICES_MAX
from edgeloop_simulators.virtual.scenario.model_tables import SyntheticData
from edgeloop_simulators.virtual.scenario.values import EVERY_DEVICE, Duration
from edgeloop_simulators.virtual.spec.faults import OF_A_MODEL, OF_THE_BROKER, OF_THE_CONTROLLER

BEFORE: Final = "before"
RECORDED_PHASES: Final = (BEFORE, "after")
STANDARD_CLASS: Final = "standard"
SHOWN_MAX: Final = 8
REAL_MODELS: Final = ("onnx", "trained", "function")
ON_SOME: Final = ("crash", "hang", "self_test")
OWN_SCRIPT: Final = ("watch", "machines")

Document = Mapping[str, Any]


class Problem(NamedTuple):
    """`path` is where to look, `text` what is wrong and how to mend it."""

    path: Path
    text: str


def reference_problems(document: Document) -> Iterator[Problem]:
    """All of them, in no order."""
    names = _Names(document)
    yield from _twice(document)
    yield from _fleet(document, names)
    yield from _data(document, names)
    yield from _models(document, names)
    yield from _trained(document, names)
    for path, table in (*_tables(document, "steps"), *_tables(document, "faults")):
        yield from _what_is_done(path, table, names)
    yield from _expected(document, names)
    yield from _too_late(document)


class _Names:
    """What the document names."""

    def __init__(self, document: Document) -> None:
        self.classes = {STANDARD_CLASS, *_named(document, "classes")}
        self.sites = set(_named(document, "sites"))
        self.devices = {
            f"{table['name']}-{number}"
            for _, table in _tables(document, "sites")
            if isinstance(table.get("name"), str) and isinstance(table.get("devices"), int)
            for number in range(1, min(table["devices"], DEVICES_MAX) + 1)
        }
        self.models = set(_named(document, "models"))
        data = document.get("data")
        data = data if isinstance(data, dict) else {"kind": "synthetic"}
        self.synthetic = data.get("kind") == "synthetic"
        self.kind = data.get("kind")
        phases = data.get("phases") if self.synthetic else None
        self.phases = {BEFORE, *(phases or {})} if self.synthetic else set(RECORDED_PHASES)
        default = SyntheticData.model_fields["sensors"].default
        sensors = data.get("sensors", default) if self.synthetic else None
        self.sensors = (
            set(filter(_is_text, sensors)) if isinstance(sensors, (list, tuple)) else None
        )
        """None: the model's manifest says."""
        self.rolled_out = {
            table.get("model")
            for _, table in _tables(document, "steps")
            if table.get("do") == "roll_out"
        }

    def target(self, path: Path, target: Any, more: Collection[str] = ()) -> Iterator[Problem]:
        """`*`, a device, `site:NAME`, `class:NAME`, or one of `more`."""
        if not _is_text(target) or target == EVERY_DEVICE or target in more:
            return
        kind, _, name = target.partition(":")
        if kind == "site" and name:
            yield from known(path, "site", name, self.sites)
        elif kind == "class" and name:
            yield from known(path, "class", name, self.classes)
        elif target not in self.devices:
            mend = "`*`, a device such as `SITE-1`, `site:NAME`, `class:NAME`"
            also = "".join(f", `{one}`" for one in more)
            yield Problem(
                path, f"no device {target!r}; write {mend}{also}{_near(target, self.devices)}"
            )


def known(path: Path, what: str, name: Any, names: Collection[str]) -> Iterator[Problem]:
    """A problem when `name` is a text and none of `names`."""
    if _is_text(name) and name not in names:
        shown = ", ".join(sorted(names)[:SHOWN_MAX]) or "none"
        more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
        yield Problem(path, f"no {what} {name!r}; known: {shown}{more}{_near(name, names)}")


def _near(name: str, names: Collection[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _twice(document: Document) -> Iterator[Problem]:
    for key in ("classes", "sites", "models"):
        seen: set[Any] = set()
        for path, table in _tables(document, key):
            name = table.get("name")
            if _is_text(name):
                if name in seen:
                    yield Problem((*path, "name"), f"{name!r} is there already; give another name")
                seen.add(name)


def _fleet(document: Document, names: _Names) -> Iterator[Problem]:
    total = 0
    for path, table in _tables(document, "sites"):
        yield from known((*path, "class"), "class", table.get("class"), names.classes)
        count = table.get("devices")
        if isinstance(count, int) and 0 < count <= DEVICES_MAX:
            total += count
            if total > DEVICES_MAX:
                text = f"{total} devices so far; a world has at most {DEVICES_MAX}"
                yield Problem((*path, "devices"), text)
                return


def _data(document: Document, names: _Names) -> Iterator[Problem]:
    data = document.get("data")
    phases = data.get("phases") if names.synthetic and isinstance(data, dict) else None
    if isinstance(phases, dict) and names.sensors is not None:
        for phase, shifts in phases.items():
            for sensor in shifts if isinstance(shifts, dict) else ():
                yield from known(("data", "phases", phase, sensor), "sensor", sensor, names.sensors)
    drifts = [*_tables(document, "drift")]
    for path, table in drifts:
        if _seconds(table.get("over", 0)) != _seconds(drifts[0][1].get("over", 0)):
            yield Problem((*path, "over"), "every change takes as long; write the first one's over")
        yield from known((*path, "phase"), "phase", table.get("phase"), names.phases)
        yield from names.target((*path, "target"), table.get("target"))
    for path, table in _tables(document, "broken_sensors"):
        yield from known((*path, "device"), "device", table.get("device"), names.devices)
        if names.sensors is not None:
            for key in ("sensor", "swapped_with"):
                yield from known((*path, key), "sensor", table.get(key), names.sensors)


def _models(document: Document, names: _Names) -> Iterator[Problem]:
    for path, table in _tables(document, "models"):
        kind = table.get("kind")
        if kind == "synthetic" and not names.synthetic:
            yield Problem(
                (*path, "kind"),
                "a synthetic model answers synthetic data only, and here [data] is recorded: write "
                'kind = "onnx" or "trained", or [data] kind = "synthetic"',
            )
        if kind in REAL_MODELS and names.synthetic:
            yield Problem(
                (*path, "kind"),
                'a real model answers recorded data only: write [data] kind = "machines", "watch" '
                'or "tabular"',
            )
        if kind == "synthetic" and table.get("goes_on") and table.get("goes") not in ON_SOME:
            yield Problem(
                (*path, "goes_on"),
                f"only {', '.join(ON_SOME)} can be of one architecture; remove it",
            )
        phases = table.get("accuracy_in")
        for phase in phases if isinstance(phases, dict) else ():
            yield from known((*path, "accuracy_in", phase), "phase", phase, names.phases)


def _trained(document: Document, names: _Names) -> Iterator[Problem]:
    trained = [found for found in _tables(document, "models") if found[1].get("kind") == "trained"]
    if "retraining" in document and not trained and not names.synthetic:
        yield Problem(("retraining",), 'needs a model of kind = "trained", whose script it runs')
    if "retraining" in document and names.synthetic:
        yield Problem(("retraining",), "needs recorded data, and a model trained on it")
    for number, (path, table) in enumerate(trained, start=1):
        name = str(trained[0][1].get("name", "")).partition("@")[0]
        if name and table.get("name") != f"{name}@{number}":
            text = f"trained versions are numbered in the file's order; write {name}@{number}"
            yield Problem((*path, "name"), text)
        if number == 1 and "spoilt" in table:
            yield Problem((*path, "spoilt"), "the first is the sound one; remove it")
        if number > 1 and "spoilt" not in table:
            text = 'missing; write "permuted", "nan" or "blind": it is the first one, spoilt'
            yield Problem((*path, "spoilt"), text)
        if number == 1 and "script" not in table and names.kind not in OWN_SCRIPT:
            yield Problem((*path, "script"), "missing; say which script trains on this data")


def _what_is_done(path: Path, table: Document, names: _Names) -> Iterator[Problem]:
    yield from known((*path, "model"), "model", table.get("model"), names.models)
    if "do" in table:
        yield from known((*path, "device"), "device", table.get("device"), names.devices)
        return
    yield from names.target((*path, "target"), table.get("target"), ("broker", "controller"))
    kind = table.get("kind")
    if kind in OF_A_MODEL and "model" not in table:
        yield Problem((*path, "model"), f"missing; say which version gets {kind}")
    if kind not in OF_A_MODEL and "model" in table and _is_text(kind):
        yield Problem((*path, "model"), f"{kind} is no fault of a model; remove it")
    for owner, kinds in (("broker", OF_THE_BROKER), ("controller", OF_THE_CONTROLLER)):
        if kind in kinds and table.get("target", owner) != owner:
            yield Problem((*path, "target"), f"{kind} befalls the {owner} alone; remove target")


def _expected(document: Document, names: _Names) -> Iterator[Problem]:
    expect = document.get("expect")
    if not isinstance(expect, dict):
        return
    versions = names.models | _retrained(expect, document)
    for path, table in _tables(expect, "rollouts", "expect"):
        model = table.get("model")
        if model in names.models and model not in names.rolled_out:
            yield Problem(
                (*path, "model"), f"no step rolls {model} out; add a step, or remove this"
            )
        yield from known((*path, "model"), "model", model, versions)
    for key in ("champions", "accuracy"):
        for path, table in _tables(expect, key, "expect"):
            yield from names.target((*path, "target"), table.get("target"))
            yield from known((*path, "model"), "model", table.get("model"), versions)
    for path, table in _tables(expect, "drift", "expect"):
        if names.sensors is not None:
            yield from known((*path, "sensor"), "sensor", table.get("sensor"), names.sensors)
        controller = document.get("controller")
        if not isinstance(controller, dict) or "drift" not in controller:
            text = 'the drift watch does not run; add drift = "10 min" to [controller]'
            yield Problem(path, text)


def _retrained(expect: Document, document: Document) -> set[str]:
    """Versions that retraining may make: nobody names them before."""
    if "retraining" not in document:
        return set()
    tables = [*_tables(expect, "rollouts"), *_tables(expect, "champions")]
    return {str(table.get("model")) for _, table in tables}


def _too_late(document: Document) -> Iterator[Problem]:
    ends_s = _seconds(document.get("duration"))
    if ends_s is None:
        return
    for key in ("steps", "faults", "drift", "broken_sensors"):
        for path, table in _tables(document, key):
            at_s = _seconds(table.get("at", 0))
            if at_s is None:
                continue
            lasts_s = _seconds(table.get("duration", 0)) or 0.0
            if at_s >= ends_s:
                text = f"at {at_s:g} s the world has ended; its duration is {ends_s:g} s"
                yield Problem((*path, "at"), text)
            elif at_s + lasts_s > ends_s:
                text = f"ends at {at_s + lasts_s:g} s, after the world's end at {ends_s:g} s"
                yield Problem((*path, "duration"), text)


_DURATION: Final[TypeAdapter[float]] = TypeAdapter(Duration)


def _seconds(given: Any) -> float | None:
    try:
        return _DURATION.validate_python(given)
    except ValidationError:
        return None


def _tables(document: Document, key: str, *above: str) -> Iterator[tuple[Path, Document]]:
    found = document.get(key)
    for number, table in enumerate(found if isinstance(found, list) else ()):
        if isinstance(table, dict):
            yield (*above, key, number), table


def _named(document: Document, key: str) -> Iterator[str]:
    for _, table in _tables(document, key):
        if _is_text(table.get("name")):
            yield table["name"]


def _is_text(given: Any) -> bool:
    return isinstance(given, str)
