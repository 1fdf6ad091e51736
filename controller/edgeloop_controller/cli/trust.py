"""`edgeloop trust`: who may sign, what is signed, and signing it (docs/trust.md).

What does the work is imported when a command runs: the other commands pay nothing for it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, VersionArgument, connected, split_version
from edgeloop_controller.cli.trust_options import (
    HOME,
    NO_KEYS,
    Expires,
    Home,
    Keys,
    Manner,
    NoPassphrase,
    PassphraseFile,
    Yes,
)
from edgeloop_controller.cli.trust_view import show

app = typer.Typer(no_args_is_help=True, help="Sign models, and say who may.")

Threshold = Annotated[int | None, typer.Option(min=1, help="signatures that the role asks for")]
RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="root, targets or a model")]
Artifact = Annotated[
    Path | None,
    typer.Option(help="your model file; without it the controller's is fetched, hashed and shown"),
]


@app.command()
def status(json: Json = False) -> None:
    """Roles, their keys and when they expire; what waits; what is not signed."""
    with connected() as client:
        document = client.get("/trust")
        waiting = client.get("/trust/waiting")["items"] if document["waiting"] else []
    if json:
        output.print_json({**document, "proposals": waiting})
        return
    show(document, waiting)


@app.command()
def init(
    root_key: Annotated[
        list[str], typer.Option(metavar="KEY", help="FILE.pem or FILE.pub; default: a new one")
    ] = NO_KEYS,
    root_threshold: Annotated[int, typer.Option(min=1)] = 1,
    targets_key: Annotated[
        list[str], typer.Option(metavar="KEY", help="FILE.pem or FILE.pub; default: a new one")
    ] = NO_KEYS,
    targets_threshold: Annotated[int, typer.Option(min=1)] = 1,
    key: Keys = NO_KEYS,
    no_passphrase: NoPassphrase = False,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the first root: from then on nothing unsigned is offered."""
    from edgeloop_controller.cli.trust_roles import Asked
    from edgeloop_controller.cli.trust_roles import init as run

    manner = _manner(home, key, passphrase_file, expires, yes, json)
    root, targets = Asked(root_key, root_threshold), Asked(targets_key, targets_threshold)
    _print(run(root, targets, manner, not no_passphrase), json)


@app.command("new-key")
def new_key(
    file: Annotated[Path, typer.Argument(metavar="FILE.pem")],
    no_passphrase: NoPassphrase = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a key of yours; FILE.pub beside it is what others are given."""
    from edgeloop_controller.cli.trust_roles import new_key as run

    run(file, _manner(HOME, [], passphrase_file), not no_passphrase)


@app.command()
def sign(
    version: VersionArgument,
    key: Keys,
    artifact: Artifact = None,
    slot: Annotated[
        list[str] | None, typer.Option(help="where it may run; may be repeated; default: any")
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(help="devices, by what they know of themselves: site=berlin, arch=aarch64"),
    ] = None,
    back_to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="the oldest that devices may go back to")
    ] = None,
    no_rollback: Annotated[
        bool, typer.Option("--no-rollback", help="nothing older may follow it")
    ] = False,
    release: Annotated[
        int | None, typer.Option(min=1, help="its counter; default: one more than any before")
    ] = None,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign a published version, or sign it anew for other slots or devices."""
    from edgeloop_controller.cli.trust_releases import Terms, sign_version

    slots = tuple(one for one in slot if one) if slot else None
    terms = Terms(slots, selector, back_to, no_rollback, release)
    manner = _manner(home, key, passphrase_file, expires, yes, json)
    _print(sign_version(*split_version(version), terms, artifact, manner), json)


@app.command("allow-rollback")
def allow_rollback(
    model: Annotated[str, typer.Argument()],
    key: Keys,
    to: Annotated[str, typer.Option(metavar="VERSION", help="the oldest to go back to")],
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let devices back to an older version from every later one."""
    from edgeloop_controller.cli.trust_releases import allow_rollback as run

    _print(run(model, to, _manner(home, key, passphrase_file, expires, yes, json)), json)


@app.command()
def withdraw(
    version: VersionArgument,
    key: Keys,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign a version no more: no device installs it again. What runs it goes on."""
    from edgeloop_controller.cli.trust_releases import withdraw as run

    manner = _manner(home, key, passphrase_file, expires, yes, json)
    _print(run(*split_version(version), manner), json)


@app.command("add-key")
def add_key(
    role: RoleArgument,
    public: Annotated[str, typer.Argument(metavar="FILE.pub")],
    key: Keys,
    threshold: Threshold = None,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let another key sign a role; a model's name gives it keys of its own."""
    from edgeloop_controller.cli.trust_roles import add_key as run

    manner = _manner(home, key, passphrase_file, expires, yes, json)
    _print(run(role, public, threshold, manner), json)


@app.command("revoke-key")
def revoke_key(
    role: RoleArgument,
    gone: Annotated[str, typer.Argument(metavar="KEY", help="FILE.pub, or its id's beginning")],
    key: Keys,
    threshold: Threshold = None,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let a key sign a role no more; what only it had signed is signed anew."""
    from edgeloop_controller.cli.trust_roles import revoke_key as run

    manner = _manner(home, key, passphrase_file, expires, yes, json)
    _print(run(role, gone, threshold, manner), json)


@app.command()
def rotate(
    role: Annotated[
        str,
        typer.Argument(metavar="ROLE", help="root, targets, a model, or online: the controller's"),
    ],
    new: Annotated[
        str | None, typer.Option(metavar="KEY", help="FILE.pem or FILE.pub; not for online")
    ] = None,
    old: Annotated[
        str | None, typer.Option(metavar="KEY", help="which goes, where there are several")
    ] = None,
    key: Keys = NO_KEYS,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put one key in another's place."""
    from edgeloop_controller.cli.trust_roles import rotate as run

    manner = _manner(home, key, passphrase_file, expires, yes, json)
    _print(run(role, new, old, manner), json)


@app.command()
def renew(
    role: Annotated[list[str], typer.Argument(metavar="ROLE...", help="root, targets or a model")],
    key: Keys,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    expires: Expires = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign the same for longer, before it expires."""
    from edgeloop_controller.cli.trust_roles import renew as run

    _print(run(role, _manner(home, key, passphrase_file, expires, yes, json)), json)


@app.command()
def countersign(
    key: Keys,
    artifact: Artifact = None,
    home: Home = HOME,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Add your signature to what waits for it, after a look at what it changes."""
    from edgeloop_controller.cli.trust_releases import countersign as run

    _print(run(artifact, _manner(home, key, passphrase_file, None, yes, json)), json)


@app.command()
def discard(role: RoleArgument) -> None:
    """Take a proposal away that waits for signatures."""
    from edgeloop_controller.cli.trust_releases import discard as run

    run(role, _manner(HOME, []))


def _print(outcome: Any, json: bool) -> None:
    if json:
        output.print_json(outcome)


def _manner(
    home: Path,
    keys: list[str],
    passphrase_file: Path | None = None,
    days: int | None = None,
    yes: bool = False,
    json: bool = False,
) -> Manner:
    return Manner(home, keys, passphrase_file, days, yes, json)
