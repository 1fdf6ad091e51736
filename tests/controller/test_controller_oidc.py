"""Identities of an OpenID Connect provider: a running one, and tokens of attackers."""

import base64
import json
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeloop_controller.access_config import OidcConfig
from edgeloop_controller.core.access import Role
from edgeloop_controller.errors import IdentityProviderError, UnauthenticatedError
from edgeloop_controller.oidc import KEYS_AGAIN_S, KEYS_LIFE_S, OidcProvider
from edgeloop_simulators.twins.clock import SimulatedClock

ISSUER = "https://login.example/realm"
AUDIENCE = "edgeloop"
REDIRECT = "http://localhost:1/back"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Provider:
    """Answers as a provider does, without a socket; counts what it is asked."""

    def __init__(self, key: Any) -> None:
        self.keys: dict[str, Any] = {"k1": key}
        self.asked = 0
        self.is_up = True
        self.about: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.is_up:
            raise httpx.ConnectError("connection refused", request=request)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return httpx.Response(200, json=self.about)
        return httpx.Response(200, json={"keys": [_jwk(k, key) for k, key in self.keys.items()]})


def _jwk(kid: str, key: Any) -> dict[str, Any]:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    algorithm = jwt.algorithms.RSAAlgorithm if is_rsa else jwt.algorithms.ECAlgorithm
    document = json.loads(algorithm.to_jwk(key.public_key()))
    return {**document, "kid": kid, "use": "sig", "alg": "RS256" if is_rsa else "ES256"}


@pytest.fixture
def provider(rsa_key: Any) -> Provider:
    return Provider(rsa_key)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def checked(provider: Provider, clock: SimulatedClock) -> Iterator[OidcProvider]:
    config = OidcConfig(issuer=ISSUER, audience=AUDIENCE, roles={"ops": (Role.OPERATOR,)})
    checking = OidcProvider(config, clock, httpx.MockTransport(provider))
    yield checking
    checking.close()


@pytest.fixture
def sign(rsa_key: Any, clock: SimulatedClock) -> Callable[..., str]:
    def sign(
        kid: str | None = "k1", key: Any = rsa_key, algorithm: str = "RS256", **claims: Any
    ) -> str:
        now = int(clock.wall())
        document = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": now + 300,
            "iat": now,
            "roles": ["ops"],
        } | claims
        present = {name: value for name, value in document.items() if value is not None}
        headers = {"kid": kid} if kid is not None else {}
        return jwt.encode(present, key, algorithm=algorithm, headers=headers)

    return sign


def test_a_good_one(checked: OidcProvider, sign: Any, clock: SimulatedClock) -> None:
    caller = checked.caller_of(sign(), clock.wall())
    assert (caller.name, caller.roles) == ("oidc:ann", {Role.OPERATOR})
    assert checked.caller_of(sign(kid=None), clock.wall()).name == "oidc:ann"


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "https://evil.example"}, "issuer"),
        ({"aud": "another"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"exp": None}, "exp"),
        ({"exp": 1000}, "has ended"),
        ({"exp": "soon"}, "no number"),
        ({"nbf": 99999999999}, "of the future"),
        ({"iat": 99999999999}, "of the future"),
        ({"sub": None}, "names nobody"),
    ],
)
def test_claims_that_are_refused(
    checked: OidcProvider, sign: Any, clock: SimulatedClock, claims: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnauthenticatedError, match=words):
        checked.caller_of(sign(**claims), clock.wall())


def test_an_attackers_tokens(
    checked: OidcProvider, sign: Any, clock: SimulatedClock, rsa_key: Any
) -> None:
    other = rsa.generate_private_key(65537, 2048)
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = sign()
    head, body, signature = whole.split(".")
    admin = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "root"}
    changed = base64.urlsafe_b64encode(json.dumps(admin).encode()).rstrip(b"=").decode()
    none = jwt.encode({"sub": "root", "iss": ISSUER, "aud": AUDIENCE}, "", algorithm="none")
    as_secret = _hs256({"alg": "HS256", "kid": "k1"}, admin, public)
    for token in (
        sign(key=other),
        f"{head}.{changed}.{signature}",
        f"{head}.{body}.",
        none,
        as_secret,
        sign(kid="unknown"),
        sign(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
        "a.b.c",
        "x" * 5000,
    ):
        with pytest.raises(UnauthenticatedError):
            checked.caller_of(token, clock.wall())


def _hs256(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """The provider's public key as a shared secret: PyJWT itself refuses to sign so."""
    import hashlib
    import hmac

    parts = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, claims)
    ]
    text = b".".join(parts)
    proof = base64.urlsafe_b64encode(hmac.new(secret, text, hashlib.sha256).digest()).rstrip(b"=")
    return (text + b"." + proof).decode()


def test_keys_are_asked_for_seldom(
    checked: OidcProvider, sign: Any, clock: SimulatedClock, provider: Provider
) -> None:
    for _ in range(5):
        checked.caller_of(sign(), clock.wall())
    assert provider.asked == 2
    for number in range(5):
        with pytest.raises(UnauthenticatedError, match="does not name"):
            checked.caller_of(sign(kid=f"u{number}"), clock.wall())
    assert provider.asked == 2, "whoever sends unknown keys does not make it ask"


def test_a_new_key_is_learnt_and_an_old_one_forgotten(
    checked: OidcProvider, sign: Any, clock: SimulatedClock, provider: Provider
) -> None:
    checked.caller_of(sign(), clock.wall())
    fresh = ec.generate_private_key(ec.SECP256R1())
    provider.keys = {"k2": fresh}
    clock.advance(KEYS_AGAIN_S + 1)
    new = sign(kid="k2", key=fresh, algorithm="ES256")
    assert checked.caller_of(new, clock.wall()).name == "oidc:ann"
    with pytest.raises(UnauthenticatedError):
        checked.caller_of(sign(), clock.wall())


def test_a_provider_that_is_away(
    checked: OidcProvider, sign: Any, clock: SimulatedClock, provider: Provider
) -> None:
    provider.is_up = False
    with pytest.raises(IdentityProviderError, match=r"cannot be asked: connection refused"):
        checked.caller_of(sign(), clock.wall())
    provider.is_up = True
    clock.advance(KEYS_AGAIN_S + 1)
    checked.caller_of(sign(), clock.wall())
    provider.is_up = False
    clock.advance(KEYS_LIFE_S + 1)
    checked.caller_of(sign(), clock.wall())


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"issuer": "https://evil.example"}, "says to be"),
        ({"jwks_uri": "http://login.example/keys"}, "without TLS"),
    ],
)
def test_a_provider_that_is_another(
    checked: OidcProvider,
    sign: Any,
    clock: SimulatedClock,
    provider: Provider,
    about: dict[str, Any],
    words: str,
) -> None:
    provider.about |= about
    with pytest.raises(IdentityProviderError, match=words):
        checked.caller_of(sign(), clock.wall())


@pytest.mark.parametrize(
    "issuer", ["http://login.example", "http://127.0.0.1.evil.example", "http://localhost.evil"]
)
def test_an_issuer_without_tls_is_refused(issuer: str) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        OidcConfig(issuer=issuer, audience="a", roles={})


def test_a_running_provider() -> None:
    """Signed in as its user, by the flow that a browser takes."""
    with warnings.catch_warnings(action="ignore"):  # of what the provider is made of
        from oidc_provider_mock import User, run_server_in_thread

    ann = User(sub="ann", claims={"groups": ["ops"], "email": "ann@example.org"})
    with run_server_in_thread(user_claims=[ann]) as server:
        issuer = f"http://localhost:{server.server_port}"
        with httpx.Client() as http:
            about = http.get(f"{issuer}/.well-known/openid-configuration").json()
            query = {
                "client_id": AUDIENCE,
                "redirect_uri": REDIRECT,
                "response_type": "code",
                "scope": "openid email",
            }
            signed_in = http.post(
                about["authorization_endpoint"], params=query, data={"sub": "ann"}
            )
            code = parse_qs(urlsplit(signed_in.headers["location"]).query)["code"][0]
            tokens = http.post(
                about["token_endpoint"],
                data={"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT},
                auth=(AUDIENCE, "any"),
            ).json()
        config = OidcConfig(
            issuer=about["issuer"],
            audience=AUDIENCE,
            name_claim="sub",
            roles_claim="groups",
            roles={"ops": (Role.OPERATOR, Role.APPROVER)},
        )
        checking = OidcProvider(config, SimulatedClock())
        caller = checking.caller_of(tokens["id_token"], time.time())
        checking.close()
    assert (caller.name, caller.roles) == ("oidc:ann", {Role.OPERATOR, Role.APPROVER})
