"""Options of commands that sign. Imports nothing that signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

HOME: Final = Path("edgeloop-trust")
NO_KEYS: Final[list[str]] = []

Home = Annotated[
    Path,
    typer.Option(
        envvar="EDGELOOP_TRUST_HOME", help="your directory: the root that you know, your keys"
    ),
]
Keys = Annotated[
    list[str],
    typer.Option(
        "--key", metavar="KEY", help="FILE.pem, or a signer's URI such as hsm:…; may be repeated"
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="its first line; else EDGELOOP_TRUST_PASSPHRASE, else you are asked"),
]
Expires = Annotated[
    int | None,
    typer.Option(min=1, max=3650, metavar="DAYS", help="root: 365, others: 90, unless given"),
]
Yes = Annotated[bool, typer.Option("--yes", help="sign without being asked")]
NoPassphrase = Annotated[
    bool, typer.Option("--no-passphrase", help="a key that its file alone protects")
]
Sign = Annotated[
    list[str],
    typer.Option("--sign", metavar="KEY", help="sign it too, as `trust sign --key` does"),
]


@dataclass(frozen=True)
class Manner:
    """What every command takes. `keys`: FILE.pem or a URI; `days`: until what is signed expires,
    by default 365 for root and 90 for the others; `quiet`: outcomes are
    returned, and not told."""

    home: Path
    keys: Sequence[str] = ()
    passphrase_file: Path | None = None
    days: int | None = None
    yes: bool = False
    quiet: bool = False
