"""The HTTP proxy that the environment names: http_proxy, https_proxy, no_proxy.

Invariant: without such a variable nothing is imported and nothing is looked up.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

PORT_DEFAULT: Final = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    headers: Mapping[str, str]


def proxy_for(scheme: str, host: str) -> Proxy | None:
    """Raises ValueError when the variable is no URL."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # 1 MB, which only a device behind a proxy pays.
    from urllib import request

    named = request.getproxies_environment()
    url = named.get(scheme) or named.get("all")
    is_direct = request.proxy_bypass_environment(host)  # type: ignore[attr-defined]
    if not url or is_direct:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if not parts.hostname:
        raise ValueError(f"the proxy {url!r} names no host")
    headers = {}
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(who.encode()).decode()}"
    return Proxy(parts.hostname, parts.port or PORT_DEFAULT, headers)
