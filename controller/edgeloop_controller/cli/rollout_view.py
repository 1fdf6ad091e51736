"""One rollout, as `edgeloop rollout show` prints it."""

from typing import Any

from edgeloop_controller.cli import output


def show_rollout(document: dict[str, Any]) -> None:
    counts = document["members"]
    output.facts(
        [
            ("rollout", document["id"]),
            ("version", f"{document['name']}@{document['version']}"),
            ("to", document["selector"]),
            ("slot", document["slot"]),
            ("waves", ", ".join(document["waves"])),
            ("status", document["status"]),
            ("shadow", _shadow(document)),
            ("wave", f"{document['wave']} of {len(document['waves'])}"),
            ("verdict", document["verdict"]),
            ("devices", ", ".join(f"{n} {phase}" for phase, n in counts.items() if n)),
            ("approved", _approvals(document)),
            ("started", output.when(document["started_at"])),
            ("ended", output.when(document["ended_at"])),
        ]
    )
    if document["shadow"] is not None and document["shadow"]["devices"]:
        output.table(
            ("in shadow", "stage", ">compared", ">unlike", "given", "taken back", "cause"),
            (
                (
                    one["device_id"],
                    one["stage"].replace("_", " "),
                    one["compared"],
                    f"{one['disagreements'] / one['compared']:.0%}" if one["compared"] else "",
                    output.ago(one["given_at"]),
                    output.ago(one["taken_back_at"]),
                    one["cause"],
                )
                for one in document["shadow"]["devices"]
            ),
            "",
        )
    output.table(
        ("gate", "halts", "says", "at"),
        (
            (v["gate"], "yes" if v["halted"] else "", v["sentence"], output.ago(v["at"]))
            for v in document["verdicts"]
        ),
        "no gate was asked yet",
    )
    output.table(
        (">wave", "device", "phase", "offered", "settled", "cause"),
        (
            (
                m["wave"],
                m["device_id"],
                m["phase"],
                output.ago(m["offered_at"]),
                output.ago(m["settled_at"]),
                m["cause"],
            )
            for m in document["devices"]
        ),
        "no device was offered it yet",
    )


def _shadow(document: dict[str, Any]) -> str:
    """Empty where it has no such phase."""
    shadow = document["shadow"]
    if shadow is None:
        return ""
    if shadow["outcome"] is None:
        return f"on {shadow['asked']} devices, before the first wave"
    return f"{shadow['outcome'].replace('_', ' ')}: {shadow['sentence']}"


def _approvals(document: dict[str, Any]) -> str:
    return ", ".join(
        f"{_wave(one['wave'])} by {one['by']}, {output.ago(one['at'])}"
        for one in document["approvals"]
    )


def _wave(number: int) -> str:
    return f"wave {number}" if number else "the shadow phase"
