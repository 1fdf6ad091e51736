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
            ("wave", f"{document['wave']} of {len(document['waves'])}"),
            ("verdict", document["verdict"]),
            ("devices", ", ".join(f"{n} {phase}" for phase, n in counts.items() if n)),
            ("approved", _approvals(document)),
            ("started", output.when(document["started_at"])),
            ("ended", output.when(document["ended_at"])),
        ]
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


def _approvals(document: dict[str, Any]) -> str:
    return ", ".join(
        f"wave {one['wave']} by {one['by']}, {output.ago(one['at'])}"
        for one in document["approvals"]
    )
