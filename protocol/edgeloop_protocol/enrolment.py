"""What a device and a controller say to each other about certificates, over HTTP (ADR 0033).

Invariants: pure; a certificate is renewed when two thirds of its life have passed, by whichever
side holds it; what is signed in a renewal begins with RENEWAL_CONTEXT, so that no signature made
for anything else is one.
"""

from typing import Final

RENEWAL_SHARE: Final = 2 / 3
RENEWAL_CONTEXT: Final = b"edgeloop renewal v1\0"
CSR_MAX_CHARS: Final = 8192
CERTIFICATE_MAX_CHARS: Final = 16_384
TOKEN_MAX_CHARS: Final = 128


def renewal_at(begins: float, ends: float) -> float:
    """When a certificate that is valid from `begins` to `ends` is to be renewed."""
    return begins + (ends - begins) * RENEWAL_SHARE


def renewal_message(csr_der: bytes) -> bytes:
    """What the present key signs to ask for a certificate by `csr_der`."""
    return RENEWAL_CONTEXT + csr_der
