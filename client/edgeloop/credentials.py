"""What a client shows to say who it is, from the environment, and where it may be sent.

Invariants: a token is never an argument of a command, for `ps` shows those; a file that others may
read is refused; a token never goes in the clear to another machine, unless that is asked for.
"""

import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeloop.errors import EdgeloopError
from edgeloop_protocol.loopback import is_loopback

TOKEN_VARIABLE: Final = "EDGELOOP_TOKEN"  # noqa: S105
TOKEN_FILE_VARIABLE: Final = "EDGELOOP_TOKEN_FILE"  # noqa: S105
CA_FILE_VARIABLE: Final = "EDGELOOP_CA_FILE"
INSECURE_VARIABLE: Final = "EDGELOOP_INSECURE"
TOKEN_FILE_MAX_BYTES: Final = 16 * 1024


def token_of(environment: Mapping[str, str]) -> str | None:
    """Raises EdgeloopError for a file that cannot be read, or that others can."""
    token = environment.get(TOKEN_VARIABLE)
    if token:
        return token.strip()
    named = environment.get(TOKEN_FILE_VARIABLE)
    return _read(Path(named).expanduser()) if named else None


def checked_for(url: str, token: str | None, environment: Mapping[str, str]) -> str | None:
    """The token, if it may be sent there. Raises EdgeloopError."""
    if token is None:
        return None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise EdgeloopError(
            "the token is not one: it holds more than printable ASCII",
            f"look at {TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE}",
        )
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
    if not is_safe and environment.get(INSECURE_VARIABLE) != "1":
        raise EdgeloopError(
            f"the token would go to {url} in the clear",
            f"use its https address, or set {INSECURE_VARIABLE}=1 where the network is safe",
        )
    return token


def tls_context(environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """What httpx takes as `verify`: the authority of EDGELOOP_CA_FILE, or the usual ones."""
    named = environment.get(CA_FILE_VARIABLE)
    if not named:
        return True
    try:
        return ssl.create_default_context(cafile=named)
    except (OSError, ssl.SSLError) as error:
        raise EdgeloopError(
            f"{CA_FILE_VARIABLE} {named} cannot be used: {error}",
            "give the file, in PEM, of the authority that the controller's certificate is of",
        ) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(TOKEN_FILE_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise EdgeloopError(
            f"{TOKEN_FILE_VARIABLE} {path} cannot be read: {error.strerror}",
            "write the token into it, and give it to its owner only",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EdgeloopError(
            f"others than its owner may read or write the token in {path}", f"chmod 600 {path}"
        )
    if not content:
        raise EdgeloopError(f"{TOKEN_FILE_VARIABLE} {path} is empty", "write the token into it")
    return content
