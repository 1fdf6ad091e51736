"""`edgeloop trust status`, as people read it."""

from typing import Any

from edgeloop_controller.cli import output


def show(document: dict[str, Any], waiting: list[dict[str, Any]]) -> None:
    if not document["initialised"]:
        output.say("nothing is signed: any version may be offered; `edgeloop trust init` begins it")
    else:
        _show_roles(document)
    for proposal in waiting:
        _show_waiting(proposal)
    if document["unsigned"]:
        output.paragraph(f"not signed: {', '.join(document['unsigned'])}", " " * 12)


def _show_roles(document: dict[str, Any]) -> None:
    output.table(
        ("role", ">version", "expires", "state", "signed", "keys", ">releases"),
        (
            (
                one["role"],
                one["version"],
                output.when(one["expires"]),
                one["state"].replace("_", " "),
                f"{len(one['signed_by'])} of {one['threshold']}",
                ", ".join(keyid[:12] for keyid in one["keys"]),
                one["releases"] or "",
            )
            for one in document["roles"]
        ),
        "",
    )
    for one in document["roles"]:
        if one["state"] != "valid" and not one["online"]:
            output.say(f"{one['role']}: `edgeloop trust renew {one['role']} --key FILE`")
        elif one["state"] == "expired":
            output.say(f"{one['role']} is not renewed: the controller's log says why")


def _show_waiting(proposal: dict[str, Any]) -> None:
    for count in proposal["signatures"]:
        given = len(count["signed_by"])
        output.say(
            f"waiting: {count['role']} has {given} of {count['threshold']} signatures of "
            f"{count['by']}"
        )
    if proposal["problem"]:
        roles = ", ".join(proposal["documents"])
        output.paragraph(f"waiting: {roles}, for nothing: {proposal['problem']}", " " * 9)
