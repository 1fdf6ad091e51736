"""Metadata over HTTP, one document at a time: `GET {base}/{name}`.

Invariants: no more than the document may have is read; one that comes too slowly is given up
(shell.rate_watch); whatever goes wrong is a MetadataError in words.
"""

import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from edgeloop_agent.errors import (
    FetchError,
    FetchMissingError,
    MetadataError,
    MetadataMissingError,
)
from edgeloop_agent.shell.http_source import get_chunks

UNRESERVED: Final = "."


class HttpMetadata:
    def __init__(self, base_url: str, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: for https; None: the system's authorities."""
        self._base = base_url.rstrip("/")
        self._tls = tls

    def fetch(self, name: str, max_bytes: int) -> bytes:
        return b"".join(self.chunks(quote(name, safe=UNRESERVED), max_bytes))

    def chunks(self, path: str, max_bytes: int) -> Iterator[bytes]:
        """Of the quoted `path`. Raises MetadataError, also while iterating."""
        size = 0
        try:
            for chunk in get_chunks(f"{self._base}/{path}", self._tls):
                size += len(chunk)
                if size > max_bytes:
                    raise MetadataError(f"{path}: longer than the {max_bytes} bytes it may have")
                yield chunk
        except FetchMissingError as error:
            raise MetadataMissingError(str(error)) from error
        except FetchError as error:
            raise MetadataError(str(error)) from error
