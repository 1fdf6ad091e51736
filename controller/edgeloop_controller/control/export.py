"""State → the text of files that say the same: what `diff` then finds no difference in."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgeloop_controller.control.plan import UNFINISHED, State
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms


def devices_toml(state: State) -> str:
    """Devices that have labels or a quarantine by the controller."""
    lines: list[str] = []
    for name, device in sorted(state.devices.items()):
        if device.labels_set or device.quarantine:
            lines += [f"[devices.{_text(name)}]"]
            if device.labels_set:
                lines.append(f"labels = {_value(device.labels_set)}")
            if device.quarantine:
                lines.append(f"quarantine = {_value(device.quarantine)}")
            lines.append("")
    return "\n".join(lines)


def rollouts_toml(state: State) -> str:
    """Unfinished and done ones; a halted or aborted one is nothing to want."""
    lines: list[str] = []
    defaults = RolloutTerms().model_dump(mode="json")
    for one in sorted(state.rollouts, key=lambda rollout: rollout.id):
        if one.status not in UNFINISHED and one.status != "done":
            continue
        name = f"{one.version.partition('@')[0]}-{one.id}"
        lines += [f"[rollouts.{_text(name)}]", f"version = {_value(one.version)}"]
        lines += [f"selector = {_value(one.selector)}", f"waves = {_value(list(one.waves))}"]
        lines += [f"slot = {_value(one.slot)}"]
        lines += [
            f"terms.{key} = {_value(value)}"
            for key, value in _differing(one.terms.model_dump(mode="json"), defaults)
        ]
        lines.append("")
    return "\n".join(lines)


def policies_toml(state: State) -> str:
    """Those of the API: the others are files already."""
    lines: list[str] = []
    for name, policy in sorted(state.policies.items()):
        if policy.origin != "api":
            continue
        given = policy.terms.model_dump(mode="json", exclude={"inputs"})
        defaults = PolicyTerms(model=policy.terms.model, script=policy.terms.script)
        lines += [f"[policies.{_text(name)}]"]
        lines += [f"{key} = {_value(given[key])}" for key in ("model", "script")]
        if policy.terms.inputs:
            lines.append(f"inputs = {_value(policy.terms.inputs)}")
        lines += [
            f"{key} = {_value(value)}"
            for key, value in _differing(given, defaults.model_dump(mode="json"))
        ]
        lines.append("")
    return "\n".join(lines)


def _differing(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, dict):
            for below, found in _differing(value, defaults.get(key) or {}):
                yield f"{key}.{below}", found
        elif key not in defaults or value != defaults[key]:
            yield key, value


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_text(k)} = {_value(v)}" for k, v in sorted(value.items()))
        return f"{{ {inside} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """A TOML basic string takes JSON's escapes; DEL has to be one too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
