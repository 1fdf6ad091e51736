"""`edgeloop model` and `edgeloop lineage`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli import trust_options as signing
from edgeloop_controller.cli.connection import Json, VersionArgument, connected, split_version
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.trust_publishing import sign_published
from edgeloop_protocol.limits import NAME_MAX_CHARS
from edgeloop_protocol.messages import NAME_PATTERN

app = typer.Typer(no_args_is_help=True, help="Publish model versions and look at them.")


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="the ONNX file")],
    name: Annotated[str, typer.Option(help="the model's name")],
    version: Annotated[str, typer.Option(help="the version's name; it can never be changed")],
    manifest: Annotated[
        Path | None, typer.Option(help="model.toml: what the file cannot say")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Parquet of training features: drift is measured from it")
    ] = None,
    sign: signing.Sign = signing.NO_KEYS,
    home: signing.Home = signing.HOME,
    passphrase_file: signing.PassphraseFile = None,
    yes: signing.Yes = False,
    json: Json = False,
) -> None:
    """Publish a version, and sign it. Publishing the same again changes nothing."""
    for path in (file, manifest, baseline):
        if path is not None and not path.is_file():
            output.fail(f"no file {path}", "", ExitCode.USAGE)
    _check_name("--name", name)
    _check_name("--version", version)
    with connected() as client:
        document = client.publish(file, name, version, manifest, baseline)
    if not json:
        say_published(document, "give --baseline")
    if sign:
        manner = signing.Manner(home, sign, passphrase_file, yes=yes, quiet=json)
        document["signature"] = sign_published(name, version, file, manner)
    if json:
        output.print_json(document)


def say_published(document: dict[str, Any], baseline_hint: str) -> None:
    done = "published" if document["created"] else "was published before, the same"
    output.say(f"{document['name']}@{document['version']} {done}")
    _show_version(document)
    if document["manifest"]["baseline"] is None:
        output.say(f"no baseline: its drift will not be watched ({baseline_hint})")


def _check_name(option: str, name: str) -> None:
    """Here as well as at the controller: a slash would end up in another path of its API."""
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > NAME_MAX_CHARS:
        output.fail(
            f"{option} {name!r} cannot be a name",
            f"use 1 to {NAME_MAX_CHARS} of letters, digits, '_', '.', '+' and '-', "
            "the first a letter or a digit",
            ExitCode.USAGE,
        )


@app.command("list")
def list_models(json: Json = False) -> None:
    """Every model."""
    with connected() as client:
        document = client.get("/models")
    if json:
        output.print_json(document)
        return
    output.table(
        ("model", ">versions", "latest", "published", ">devices"),
        (
            (m["name"], m["versions"], m["latest"], output.ago(m["published_at"]), m["devices"])
            for m in document["items"]
        ),
        "no model is published: edgeloop model publish FILE --name N --version V",
    )


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME[@VERSION]")], json: Json = False
) -> None:
    """A model's versions, or one version with its manifest."""
    if "@" in model:
        name, version = split_version(model)
        path = f"/models/{quoted(name)}/versions/{quoted(version)}"
    else:
        path = f"/models/{quoted(model)}"
    with connected() as client:
        document = client.get(path)
    if json:
        output.print_json(document)
    elif "@" in model:
        _show_version(document)
    else:
        _show_model(document)


def lineage(version: VersionArgument, json: Json = False) -> None:
    """Where a version comes from: runs, data, drift and devices, read backwards."""
    name, number = split_version(version)
    with connected() as client:
        document = client.get(f"/models/{quoted(name)}/versions/{quoted(number)}/lineage")
    if json:
        output.print_json(document)
        return
    for link in document["chain"]:
        lead = "" if link["kind"] == "version" else "  <- "
        output.paragraph(lead + link["text"], " " * 5)


def _show_model(document: dict[str, Any]) -> None:
    output.table(
        ("version", "published", ">size", ">devices", "run", "manifest"),
        (
            (
                v["version"],
                output.when(v["published_at"]),
                output.size(v["artifact_size_bytes"]),
                v["devices"],
                v["training_run_id"],
                v["manifest_digest"][:12],
            )
            for v in document["items"]
        ),
        "no version",
    )


def _show_version(document: dict[str, Any]) -> None:
    manifest = document["manifest"]
    artifact, evaluation, baseline = (
        manifest["artifact"],
        manifest["evaluation"],
        manifest["baseline"],
    )
    pairs = [
        ("manifest", document["manifest_digest"]),
        ("artifact", f"{artifact['digest'][:16]}…, {output.size(artifact['size_bytes'])}"),
        ("runtime", f"{artifact['runtime']}, opset {artifact['opset']}"),
        ("inputs", _tensors(manifest["inputs"])),
        ("outputs", f"{_tensors(manifest['outputs'])}; scores: {manifest['scores_output']}"),
        ("features", f"{len(manifest['features'])}, of {_sensors(manifest)}"),
        ("labels", ", ".join(manifest["labels"])),
        ("golden", f"{len((manifest['golden'] or {}).get('inputs', []))} examples"),
        ("baseline", f"{baseline['count']} examples" if baseline else "none"),
        ("devices", document["devices"]),
        ("published", output.when(document["published_at"])),
    ]
    if evaluation:
        text = f"accuracy {evaluation['accuracy']:.3f} on {evaluation['examples']} examples"
        pairs.append(("evaluation", text))
    output.facts(pairs)


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{t['name']} {t['dtype']}[{', '.join('?' if d is None else str(d) for d in t['shape'])}]"
        for t in tensors
    )


def _sensors(manifest: dict[str, Any]) -> str:
    return ", ".join(sorted({feature["sensor"] for feature in manifest["features"]}))
