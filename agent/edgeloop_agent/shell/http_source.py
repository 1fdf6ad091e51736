"""Artifacts from the controller: `GET {controller_url}/v1/artifacts/{sha256}` with Range.

Invariants: httpx is imported at the first fetch only, because a device pays 15 MB for it; a server
that ignores Range is read from its beginning; whatever goes wrong is FetchUnreachableError.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from edgeloop_agent.errors import FetchMissingError, FetchUnreachableError

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0


class HttpArtifactSource:
    def __init__(self, controller_url: str) -> None:
        self._base = f"{controller_url.rstrip('/')}/v1/artifacts"

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        import httpx

        url = f"{self._base}/{digest}"
        headers = {"Accept-Encoding": "identity"} | (
            {"Range": f"bytes={offset}-"} if offset else {}
        )
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with httpx.stream("GET", url, headers=headers, timeout=timeout) as response:
                yield self._chunks(response, url, offset)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise FetchUnreachableError(f"{url}: {what}") from error

    def _chunks(self, response: "httpx.Response", url: str, offset: int) -> Iterator[bytes]:
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            if response.headers.get("Content-Range", "") == f"bytes */{offset}":
                return  # exactly at the end
            raise FetchUnreachableError(f"{url} has no byte {offset}")
        if status == HTTPStatus.NOT_FOUND:
            raise FetchMissingError(f"{url} answered {status}")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise FetchUnreachableError(f"{url} answered {status}")
        skip = offset if status == HTTPStatus.OK else 0
        # Without a chunk size, httpx gives what a read brought, at most 64 KiB; with one, it
        # would lose the unfinished chunk when the link is cut.
        for chunk in response.iter_raw():
            if skip < len(chunk):
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))
        if skip:
            raise FetchUnreachableError(f"{url} has no byte {offset}")
