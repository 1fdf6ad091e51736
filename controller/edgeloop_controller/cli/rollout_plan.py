"""`edgeloop rollout plan`, as people read it."""

from collections.abc import Sequence
from typing import Any, Final

from edgeloop_controller.cli import output

NAMES_SHOWN_MAX: Final = 4


def show_plan(document: dict[str, Any]) -> None:
    output.table(
        ("wave", ">devices", "who", ">bytes", "begins", ">takes"),
        (
            (
                wave["wave"],
                len(wave["devices"]),
                _some(wave["devices"]),
                output.size(wave["bytes"]),
                output.when(wave["begins_at"]),
                _takes(wave),
            )
            for wave in document["waves"]
        ),
        "nobody would be offered it now",
    )
    shadow = document["shadow"]
    if shadow is not None and shadow["cannot"]:
        output.table(
            ("not in shadow", ">devices", "who"),
            (
                (one["cause"], len(one["devices"]), _some(one["devices"]))
                for one in shadow["cannot"]
            ),
            "",
        )
    if document["cannot"]:
        output.table(
            ("cannot", ">devices", "who"),
            (
                (one["cause"], len(one["devices"]), _some(one["devices"]))
                for one in document["cannot"]
            ),
            "",
        )
    for sentence in _sentences(document):
        output.say(sentence)


def _sentences(document: dict[str, Any]) -> list[str]:
    reached = sum(len(wave["devices"]) for wave in document["waves"])
    said = [f"It cannot start yet: {document['unsigned']}"] if document["unsigned"] else []
    said += _shadow(document["shadow"]) if document["shadow"] is not None else []
    said.append(f"{reached} of {document['matching']} matching devices get it.")
    if document["has_it"]:
        said.append(f"{len(document['has_it'])} of them run it already.")
    if document["offline"]:
        said.append(f"{document['offline']} of them are offline and get it when they are back.")
    if document["later"]:
        many = len(document["later"])
        said.append(f"{many} more are offline and get it in their hours, once they are back.")
    said.append(_cost(document))
    if document["ends_at"] is not None:
        end = output.when(document["ends_at"])
        said.append(f"It ends at {end} at the earliest, if every gate holds.")
    if document["cut_short"]:
        said.append("It is too long to be played to its end: the waves show its beginning.")
    if document["waits"]:
        said.append(f"It would stay where it is: {document['waits']}.")
    if document["overlaps"]:
        named = ", ".join(map(str, document["overlaps"]))
        said.append(f"Not over on the same devices: rollout {named}; see --queue and --preempt.")
    if document["unknown_timezones"]:
        named = ", ".join(document["unknown_timezones"])
        said.append(f"Not known as timezones, and taken for UTC: {named}.")
    return said


def _shadow(shadow: dict[str, Any]) -> list[str]:
    """What comes before the first wave."""
    names = shadow["devices"]
    if not names:
        return [f"Nobody of {shadow['asked']} would run it in shadow: the first wave would wait."]
    many = f"{len(names)} of {shadow['asked']} devices" if len(names) < shadow["asked"] else ""
    who = f"{many or f'{len(names)} devices'} ({_some(names)})"
    fetched = output.size(shadow["bytes"])
    if shadow["ends_at"] is None:
        return [f"First it is in shadow on {who}, which fetch {fetched}, until a person decides."]
    least = output.span(shadow["ends_at"] - shadow["begins_at"])
    return [f"First it is in shadow on {who}, which fetch {fetched}, for {least} at the least."]


def _cost(document: dict[str, Any]) -> str:
    total, full = document["bytes"], document["bytes_without_patches"]
    if document["patched"]:
        return (
            f"They fetch {output.size(total)}: {document['patched']} a patch; "
            f"without patches it would be {output.size(full)}."
        )
    if not total:
        return "They fetch nothing: they have it still."
    return f"They fetch {output.size(total)}, or less once there are patches."


def _takes(wave: dict[str, Any]) -> str:
    if wave["ends_at"] is None:
        return "-"
    return output.span(wave["ends_at"] - wave["begins_at"])


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > NAMES_SHOWN_MAX else ""
    return ", ".join(names[:NAMES_SHOWN_MAX]) + more
