"""`edgeloop token`: API tokens, over the API or, for the first, in the controller's database."""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from edgeloop_controller.config import ControllerConfig

app = typer.Typer(no_args_is_help=True, help="Who may ask the controller, and for what.")

DAY_S: Final = 86400.0
NEVER: Final = "never"
UNITS_S: Final = {"h": 3600.0, "d": DAY_S}
_SPAN: Final = re.compile(r"([0-9]{1,5})(h|d)")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="controller.toml: write into its database, running or not, instead of asking it. "
        "For the first token",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="the person or the program that will use it")],
    role: Annotated[
        list[str], typer.Option(help="viewer, operator, publisher, approver or admin; repeat it")
    ],
    expires: Annotated[str, typer.Option(help="`90d`, `12h`, or `never`")] = "90d",
    config: ConfigOption = None,
    json: Json = False,
) -> None:
    """Make a token. It is printed once, to stdout; everything else goes to stderr."""
    life_s = _life_s(expires)
    if config is not None:
        made = _create_on_site(config, name, role, life_s)
    else:
        with connected() as client:
            made = client.post("/tokens", {"name": name, "roles": role, "life_s": life_s})
    if json:
        output.print_json(made)
        return
    token = made["token"]
    ends = f"until {output.when(token['ends_at'])}" if token["ends_at"] else "without an end"
    roles = ", ".join(token["roles"])
    output.errors.print(f"token of {token['name']} ({roles}), valid {ends}; shown only now:")
    typer.echo(made["secret"])
    output.errors.print(
        "put it into a file of its owner's only, and name that: EDGELOOP_TOKEN_FILE"
    )


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """Every token, by name; what it is stays unknown."""
    with connected() as client:
        document = client.get("/tokens")
    if json:
        output.print_json(document)
        return
    output.table(
        ("token", "roles", "state", "made", "by", "ends"),
        (
            (
                one["name"],
                ", ".join(one["roles"]),
                one["state"],
                output.when(one["created_at"]),
                one["created_by"],
                output.when(one["ends_at"]) if one["ends_at"] else NEVER,
            )
            for one in document["items"]
        ),
        "no token: edgeloop token create NAME --role admin --config controller.toml",
    )


@app.command()
def revoke(name: str, config: ConfigOption = None) -> None:
    """From now on the tokens of that name are nobody's."""
    if config is not None:
        _revoke_on_site(config, name)
    else:
        with connected() as client:
            client.delete(f"/tokens/{quoted(name)}")
    output.say(f"token {name} is revoked")


def who_am_i(json: Json = False) -> None:
    """Who the controller takes you for, and what you may do."""
    with connected() as client:
        document = client.get("/whoami")
    if json:
        output.print_json(document)
    elif document["authenticated"]:
        output.say(f"{document['name']}: {', '.join(document['roles']) or 'no role'}")
    else:
        output.say("nobody in particular: this controller asks nobody who they are")


def _life_s(expires: str) -> float | None:
    if expires == NEVER:
        return None
    span = _SPAN.fullmatch(expires)
    if span is None:
        output.fail(
            f"--expires {expires!r} is no time", "for example 90d, 12h, or never", ExitCode.USAGE
        )
    return int(span[1]) * UNITS_S[span[2]]


def _create_on_site(
    config: Path, name: str, roles: list[str], life_s: float | None
) -> dict[str, Any]:
    from edgeloop_controller.api.routes.people import token_document
    from edgeloop_controller.errors import ControllerError
    from edgeloop_controller.services.on_site import on_site

    with ExitStack() as stack:
        try:
            site = stack.enter_context(
                on_site(_load(config), "POST", "/v1/tokens", f"token:{name}")
            )
            row, secret = site.people.create(name, roles, life_s, site.actor)
        except ControllerError as error:
            output.fail(str(error), error.hint, ExitCode.REFUSED_INPUT)
        return {
            "token": token_document(row, site.clock.wall()).model_dump(mode="json"),
            "secret": secret,
        }


def _revoke_on_site(config: Path, name: str) -> None:
    from edgeloop_controller.errors import ControllerError
    from edgeloop_controller.services.on_site import on_site

    try:
        with on_site(_load(config), "DELETE", f"/v1/tokens/{name}", f"token:{name}") as site:
            site.people.revoke(name)
    except ControllerError as error:
        output.fail(str(error), error.hint, ExitCode.REFUSED_INPUT)


def _load(path: Path) -> "ControllerConfig":
    from edgeloop_controller.config import ControllerConfig
    from edgeloop_protocol.config import load_config
    from edgeloop_protocol.errors import ConfigError

    try:
        return load_config(ControllerConfig, path)
    except ConfigError as error:
        output.fail(str(error), "", ExitCode.USAGE)
