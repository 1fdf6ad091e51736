"""`edgeloop device enroll|tokens|enrolments|approve|reject|authority|identity|revoke|rotate`.

Invariants: a token is printed once, alone on stdout, or written into a file that only its owner may
read; it is never an argument.
"""

import csv
import io
import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edgeloop.client import Client, quoted
from edgeloop.errors import ApiError
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_protocol.messages import Ask

HOUR_S: Final = 3600.0
BATCH_MAX: Final = 10_000
ANSWER_TIMEOUT_S: Final = 5.0
CUT_OFF_WATCHED_S: Final = 8.0
CUT_OFF_LOOK_S: Final = 0.2

Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="set on the device")
]


def enroll(
    device: Annotated[str | None, typer.Option(help="for this device id alone")] = None,
    site: Annotated[str | None, typer.Option(help="as --label site=…")] = None,
    label: Labels = None,
    hours: Annotated[float, typer.Option(min=0.01, max=2160, help="until it expires")] = 24.0,
    batch: Annotated[
        Path | None, typer.Option(help="a file of device ids, one a line: a token for each")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write into this new file, chmod 600, not to stdout")
    ] = None,
    json: Json = False,
) -> None:
    """Make a token that lets one device in, once. It is shown now and never again."""
    labels = labels_of(label or [], site)
    if batch is not None:
        _enroll_batch(batch, out, labels, hours)
        return
    with connected() as client:
        made = _make_token(client, device, labels, hours)
    if out is not None:
        _write_new(out, made["token"] + "\n")
        output.say(f"token {made['id']} is in {out}, until {output.when(made['expires_at'])}")
    elif json:
        output.print_json(made)
    else:
        typer.echo(made["token"])


def tokens(json: Json = False) -> None:
    """Tokens that were made, without the tokens themselves."""
    with connected() as client:
        document = client.get("/enrolment-tokens")
    if json:
        output.print_json(document)
        return
    output.table(
        (">id", "for", "labels", "made", "expires", "used by"),
        (
            (
                one["id"],
                one["device_id"] or "any device",
                _labels(one["labels"]),
                output.when(one["made_at"]),
                output.when(one["expires_at"]),
                one["spent_by"],
            )
            for one in document["items"]
        ),
        "no token was made yet",
    )


def take_token_back(token_id: int) -> None:
    """A token that was not used yet cannot be from now on."""
    with connected() as client:
        client.delete(f"/enrolment-tokens/{token_id}")
    output.say(f"token {token_id} cannot be used any more")


def enrolments(
    everything: Annotated[bool, typer.Option("--all", help="those decided too")] = False,
    json: Json = False,
) -> None:
    """Devices that asked to be let in without a token."""
    with connected() as client:
        document = client.get("/enrolments", state=None if everything else "pending")
    if json:
        output.print_json(document)
        return
    output.table(
        (">id", "device", "state", "from", "asked", "key (SHA-256)"),
        (
            (
                one["id"],
                one["device_id"],
                one["state"],
                one["address"],
                output.ago(one["asked_at"]),
                one["key"][:16],
            )
            for one in document["items"]
        ),
        "no device waits for approval",
    )


def approve(
    enrolment_id: int,
    site: Annotated[str | None, typer.Option(help="as --label site=…")] = None,
    label: Labels = None,
) -> None:
    """Let a device in that waits; compare its key with what the device shows."""
    _decide(enrolment_id, True, labels_of(label or [], site))


def reject(enrolment_id: int) -> None:
    """Do not let a device in."""
    _decide(enrolment_id, False, {})


def identity(device_id: str, json: Json = False) -> None:
    """What a device is known by: its key, until when."""
    with connected() as client:
        document = client.get(f"/devices/{quoted(device_id)}/identity")
    if json:
        output.print_json(document)
        return
    revoked = document["revoked_at"]
    output.facts(
        [
            ("device", document["device_id"]),
            ("key (SHA-256)", document["key"]),
            ("enrolled", output.when(document["enrolled_at"])),
            ("certificate until", output.when(document["certificate_ends"])),
            ("new key asked for", "yes" if document["key_is_to_change"] else "no"),
            (
                "revoked",
                f"{output.when(revoked)}: {document['revoked_because']}" if revoked else "no",
            ),
            ("broker", "is still to be told" if document["cut_off_due"] else "knows"),
        ]
    )


def revoke(
    device_id: str,
    reason: Annotated[str, typer.Option(help="kept with the device")] = "revoked by an operator",
) -> None:
    """Cut a device off, for good: its certificates, and the connection that it has now."""
    path = f"/devices/{quoted(device_id)}"
    began = time.monotonic()
    with connected() as client:
        document = client.post(f"{path}/revocation", {"reason": reason})
        while document["cut_off_due"] and time.monotonic() < began + CUT_OFF_WATCHED_S:
            time.sleep(CUT_OFF_LOOK_S)
            document = client.get(f"{path}/identity")
    output.say(f"{device_id} is revoked: HTTP refuses it, and it gets no certificate")
    if not document["cut_off_due"]:
        output.say("the broker refuses it too, and has ended its connection")
        return
    output.fail(
        f"the broker has not cut {device_id} off yet",
        "it is tried until it works, if there is a table [broker.access]: look into the "
        "controller's log, or stop the broker",
        ExitCode.NO_ANSWER,
    )


def rotate(device_id: str) -> None:
    """Ask for a new key: now, if the device answers, else at its next renewal."""
    path = f"/devices/{quoted(device_id)}"
    with connected() as client:
        document = client.post(f"{path}/rotation")
        asked = {"asks": Ask.RENEW_CERTIFICATE, "timeout_s": ANSWER_TIMEOUT_S}
        try:
            answer = client.post(f"{path}/diagnosis", asked)
        except ApiError as error:
            answer = {"text": error.message}
    ends = output.when(document["certificate_ends"])
    output.say(f"{device_id} makes a new key when it renews its certificate, before {ends}")
    output.say(f"asked to do so now: {answer['text']}")


def authority(
    out: Annotated[Path | None, typer.Option(help="write its certificate, in PEM, there")] = None,
    json: Json = False,
) -> None:
    """The fingerprint of the authority that devices are to trust (`enroll --ca-fingerprint`)."""
    with connected() as client:
        document = client.get("/enrolments/authority")
    if out is not None:
        out.write_text(document["authority"], encoding="ascii")
    if json:
        output.print_json(document)
    else:
        typer.echo(document["fingerprint"])


def add_to(app: typer.Typer) -> None:
    """Into `edgeloop device`."""
    app.command("enroll")(enroll)
    app.command("tokens")(tokens)
    app.command("take-token-back")(take_token_back)
    app.command("enrolments")(enrolments)
    app.command("approve")(approve)
    app.command("reject")(reject)
    app.command("authority")(authority)
    app.command("identity")(identity)
    app.command("revoke")(revoke)
    app.command("rotate")(rotate)


def labels_of(given: list[str], site: str | None) -> dict[str, str]:
    """KEY=VALUE each; ends the command for one that is not."""
    labels = {} if site is None else {"site": site}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            output.fail(f"{text!r} is not KEY=VALUE", "for example site=lab", ExitCode.USAGE)
        labels[key] = value
    return labels


def _make_token(
    client: Client, device: str | None, labels: dict[str, str], hours: float
) -> dict[str, Any]:
    body = {"device_id": device, "labels": labels, "lifetime_s": hours * HOUR_S}
    made: dict[str, Any] = client.post("/enrolment-tokens", body)
    return made


def _enroll_batch(batch: Path, out: Path | None, labels: dict[str, str], hours: float) -> None:
    """`device_id,token` a line. The file is made first: no token is made for nothing."""
    if out is None:
        output.fail("--batch writes many secrets", "name a new file with --out", ExitCode.USAGE)
    try:
        ids = [line.strip() for line in batch.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        output.fail(f"cannot read {batch}: {error}", "a device id a line", ExitCode.USAGE)
    ids = [device_id for device_id in ids if device_id and not device_id.startswith("#")]
    if not 0 < len(ids) <= BATCH_MAX:
        output.fail(f"{batch} names {len(ids)} devices", f"1 to {BATCH_MAX}", ExitCode.USAGE)
    _write_new(out, "")
    made = io.StringIO()
    rows = csv.writer(made, lineterminator="\n")
    try:
        with connected() as client:
            for device_id in ids:
                rows.writerow((device_id, _make_token(client, device_id, labels, hours)["token"]))
    finally:
        out.write_text(made.getvalue(), encoding="ascii")
    output.say(f"{len(ids)} tokens are in {out}, a device id and its token a line")


def _write_new(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        hint = "name a file that is not there yet"
        output.fail(f"cannot write {path}: {error.strerror}", hint, ExitCode.USAGE)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _decide(enrolment_id: int, approved: bool, labels: dict[str, str]) -> None:
    with connected() as client:
        body = {"approved": approved, "labels": labels}
        document = client.put(f"/enrolments/{enrolment_id}/decision", body)
    output.say(f"{document['device_id']} is {document['state']}")


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
