"""From when until when a certificate file is valid, which `ssl` tells of no file.

Invariants: reads the first certificate of a PEM file, as far as its Validity (RFC 5280, 4.1) and no
further; whatever it is instead raises ValueError.
"""

import calendar
import re
import ssl
import time
from collections.abc import Iterator
from typing import Final

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME: Final = 0x17
_EXPLICIT_VERSION: Final = 0xA0


def valid_between(pem: str) -> tuple[float, float]:
    """Seconds since 1970."""
    block = _BLOCK.search(pem)
    if block is None:
        raise ValueError("no certificate in PEM")
    ((_, certificate),) = _parts(ssl.PEM_cert_to_DER_cert(block[0]))
    _, to_be_signed = next(_parts(certificate))
    fields = [content for tag, content in _parts(to_be_signed) if tag != _EXPLICIT_VERSION]
    serial_signature_issuer = 3
    begins, ends = _parts(fields[serial_signature_issuer])
    return _seconds(*begins), _seconds(*ends)


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each of the elements that follow one another."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            digits = size & 0x7F
            size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
        if at + size > len(der):
            raise ValueError("a certificate that ends early")
        yield tag, der[at : at + size]
        at += size


def _seconds(tag: int, text: bytes) -> float:
    said = text.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: up to 2049
        said = ("19" if said[:2] >= "50" else "20") + said
    return float(calendar.timegm(time.strptime(said, "%Y%m%d%H%M%SZ")))
