"""An OpenID Connect provider: its keys are asked for, its tokens checked (OpenID Connect Core 1.0,
3.1.3.7; RFC 8725).

Invariants: only asymmetric algorithms, whatever a token says; issuer, audience and end are checked;
keys are asked for at most once in KEYS_AGAIN_S, whoever sends tokens with unknown ones, and what is
read is bounded; a provider that is away leaves the keys that are known in use.
"""

import json
import threading
from collections.abc import Mapping
from typing import Any, Final

import httpx
import jwt

from edgeloop_controller.access_config import OidcConfig
from edgeloop_controller.core import identities
from edgeloop_controller.core.access import Caller
from edgeloop_controller.errors import IdentityProviderError, UnauthenticatedError
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import MIB

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "EdDSA",
)
KEYS_LIFE_S: Final = 3600.0
KEYS_AGAIN_S: Final = 60.0
LEEWAY_S: Final = 60.0
ANSWER_MAX_BYTES: Final = MIB
KEYS_MAX: Final = 100


class OidcProvider:
    def __init__(
        self, config: OidcConfig, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._http = httpx.Client(timeout=config.timeout_s, transport=transport)
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._problem = ""

    def close(self) -> None:
        self._http.close()

    def caller_of(self, token: str, now: float) -> Caller:
        key = self._key_of(token)
        config = self._config
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=config.audience,
                issuer=config.issuer,
                leeway=LEEWAY_S,
                # The times are compared below with the controller's clock, which tests set.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from error
        _check_times(claims, now)
        return identities.caller_of(claims, config.name_claim, config.roles_claim, config.roles)

    def _key_of(self, token: str) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from error
        if header.get("alg") not in ALGORITHMS:
            raise _refused(f"its algorithm is {header.get('alg')!r}")
        wanted = header.get("kid")
        with self._lock:
            self._refresh(wanted)
            if wanted is None and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            found = self._keys.get(str(wanted))
            if found is not None:
                return found
            if not self._keys:
                raise IdentityProviderError(
                    f"the identity provider {self._config.issuer} cannot be asked: {self._problem}",
                    hint="an API token does not need it",
                )
        raise _refused(f"it is signed with a key {wanted!r} that the provider does not name")

    def _refresh(self, wanted: Any) -> None:
        """Ask for the keys where they are old, or do not have the one that is wanted."""
        now = self._clock.monotonic()
        is_old = self._read_at is None or now - self._read_at > KEYS_LIFE_S
        is_missing = wanted is not None and str(wanted) not in self._keys
        is_soon = self._tried_at is not None and now - self._tried_at < KEYS_AGAIN_S
        if not (is_old or is_missing) or is_soon:
            return
        self._tried_at = now
        try:
            self._keys = self._read_keys()
            self._read_at = now
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            self._problem = str(error) or type(error).__name__

    def _read_keys(self) -> dict[str, jwt.PyJWK]:
        issuer = self._config.issuer
        about = self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if about["issuer"] != issuer:
            raise ValueError(f"it says to be {about['issuer']!r}, and is configured as {issuer!r}")
        address = str(about["jwks_uri"])
        if issuer.startswith("https://") and not address.startswith("https://"):
            raise ValueError(f"its keys are at {address!r}, without TLS")
        keys: dict[str, jwt.PyJWK] = {}
        for document in self._get(address)["keys"][:KEYS_MAX]:
            if document.get("use", "sig") != "sig" or document.get("kty") == "oct":
                continue
            try:
                keys[str(document.get("kid", ""))] = jwt.PyJWK.from_dict(document)
            except jwt.PyJWTError:
                continue  # of an algorithm that is not known here; others may be
        return keys

    def _get(self, url: str) -> Any:
        with self._http.stream("GET", url) as response:
            response.raise_for_status()
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > ANSWER_MAX_BYTES:
                    raise ValueError(f"{url} answers more than {ANSWER_MAX_BYTES} bytes")
        return json.loads(content)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    ends_at, begins_at, made_at = (claims.get(claim) for claim in ("exp", "nbf", "iat"))
    for at in (ends_at, begins_at, made_at):
        if at is not None and not isinstance(at, int | float):
            raise _refused("one of its times is no number")
    if ends_at is None or now >= ends_at + LEEWAY_S:
        raise _refused("it has ended")
    if max(begins_at or 0, made_at or 0) > now + LEEWAY_S:
        raise _refused("it is of the future")


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(
        f"the identity's token is refused: {why}", hint="get a new one from the identity provider"
    )
