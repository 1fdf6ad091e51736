"""MLflow's webhook: is it MLflow's, is it new, and which alias does it say has moved. Pure.

MLflow (mlflow/webhooks/delivery.py, from 3.3) signs `{delivery id}.{timestamp}.{body}` by
HMAC-SHA256 under the secret's UTF-8 bytes: `v1,` and base64. It repeats what was answered 429 or
5xx with the same id and time.

Invariants: compared in constant time; refused beyond SKEW_S_MAX, and remembered for as long, so
that what is recorded on the way tells nothing new when it is sent again; bounded.
"""

import base64
import hashlib
import hmac
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.errors import SignatureError

BODY_MAX_BYTES: Final = 64 * 1024
SKEW_S_MAX: Final = 300.0
DELIVERIES_REMEMBERED_MAX: Final = 10_000

SIGNATURE_HEADER: Final = "x-mlflow-signature"
DELIVERY_HEADER: Final = "x-mlflow-delivery-id"
TIMESTAMP_HEADER: Final = "x-mlflow-timestamp"
_DELIVERY: Final = re.compile(r"[A-Za-z0-9-]{8,64}")

ALIAS_ENTITY: Final = "model_version_alias"


@dataclass(frozen=True)
class Moved:
    """An alias that MLflow says was set or deleted."""

    model: str
    alias: str


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes], now: float) -> str:
    """The delivery's id. `headers` by their names in lower case. Raises SignatureError."""
    delivery = headers.get(DELIVERY_HEADER, "")
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    signature = headers.get(SIGNATURE_HEADER, "")
    if not signature:
        raise SignatureError(
            f"the webhook has no {SIGNATURE_HEADER}",
            "create it in MLflow with secret=, the line of webhook_secret_file",
        )
    if not _DELIVERY.fullmatch(delivery) or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise SignatureError(f"the webhook has no {DELIVERY_HEADER} or no {TIMESTAMP_HEADER}")
    signed = f"{delivery}.{timestamp}.".encode() + body
    given = signature.encode()
    fits = [hmac.compare_digest(_signature(secret, signed), given) for secret in secrets]
    if not any(fits):
        raise SignatureError(
            "the webhook's signature is not of a secret that this controller knows",
            "webhook_secret_file must hold the secret that the webhook was created with",
        )
    if abs(now - int(timestamp)) > SKEW_S_MAX:
        raise SignatureError(
            f"the webhook was signed {now - int(timestamp):.0f} s ago; up to {SKEW_S_MAX:g} s may "
            "lie between",
            "set the clocks of MLflow's machine and of this one (NTP)",
        )
    return delivery


def _signature(secret: bytes, signed: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256))


class Deliveries:
    """The ids that came while their signatures hold; the oldest go first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def is_new(self, delivery: str, now: float) -> bool:
        """Once for each id within the time that a signature can be used."""
        while self._seen:
            oldest, at = next(iter(self._seen.items()))
            if now - at <= 2 * SKEW_S_MAX and len(self._seen) < DELIVERIES_REMEMBERED_MAX:
                break
            del self._seen[oldest]
        if delivery in self._seen:
            return False
        self._seen[delivery] = now
        return True


def moved_alias(body: bytes) -> Moved | None:
    """None: it tells of something else, as each registry's webhook may."""
    try:
        document = json.loads(body)
        if document["entity"] != ALIAS_ENTITY:
            return None
        model, alias = document["data"]["name"], document["data"]["alias"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(model, str) or not isinstance(alias, str):
        return None
    return Moved(model, alias)
