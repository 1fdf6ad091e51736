"""The child that verifies metadata and says what it lists.

Usage: python -m edgeloop_agent.trust.main, with one JSON line on stdin:
{"directory", "root", "url", "tls" (null, or {"ca", "certificate", "key"}, paths or null), "now"
(seconds since 1970), "targets": [names]}
It answers one JSON line: {"targets": {name: {"length", "hashes", "custom"}}} with those that are
listed, or {"problem": words}.

Invariants: it takes no more memory, processor time and disk than the limits below; it ends with its
supervisor, whose end of stdin then closes.
"""

import json
import os
import resource
import ssl
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgeloop_agent.errors import AgentError
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.trust.client import TARGETS_MAX_BYTES, TufClient
from edgeloop_agent.trust.metadata_source import HttpMetadata
from edgeloop_agent.trust.metadata_store import MetadataStore
from edgeloop_protocol.limits import MIB

MEMORY_MAX_BYTES: Final = 320 * MIB
"""Of address space. 50 MiB is usual, 80 with five thousand targets; the worst document found that
may come takes 240."""
CPU_S_MAX: Final = 60
NICENESS: Final = 5


def main() -> int:
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    os.nice(NICENESS)
    _limit()
    try:
        answer: Mapping[str, Any] = {"targets": _look_up(request)}
    except MemoryError:
        answer = {"problem": "verifying it needs more memory than it may have"}
    except AgentError as error:
        answer = {"problem": str(error)}
    except OSError as error:
        answer = {"problem": f"disk: {error}"}
    except Exception as error:  # a bug, or a library's own: new installs wait, and say so
        answer = {"problem": f"internal: {error!r}"}
    print(json.dumps(answer), flush=True)
    return 0


def _look_up(request: Mapping[str, Any]) -> dict[str, Any]:
    store = MetadataStore(OsDisk(Path(request["directory"])))
    store.begin(_bootstrap(Path(request["root"])))
    now = datetime.fromtimestamp(request["now"], UTC)
    source = HttpMetadata(request["url"], _tls(request["tls"]))
    client = TufClient(store, source, now)
    client.refresh()
    listed = {}
    for name in request["targets"]:
        target = client.find(name)
        if target is not None:
            listed[name] = {
                "length": target.length,
                "hashes": target.hashes,
                "custom": target.custom,
            }
    return listed


def _bootstrap(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AgentError(f"the publisher's root.json cannot be read: {error}") from error


def _tls(files: Mapping[str, str | None] | None) -> ssl.SSLContext | None:
    """Made anew each time, so that a renewed certificate is used from the next look-up on."""
    if files is None:
        return None
    try:
        context = ssl.create_default_context(cafile=files["ca"])
        if files["certificate"] is not None:
            context.load_cert_chain(files["certificate"], files["key"])
    except OSError as error:  # ssl.SSLError is one
        raise AgentError(f"the files for TLS cannot be used: {error}") from error
    return context


def _limit() -> None:
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_CPU, CPU_S_MAX),
        (resource.RLIMIT_FSIZE, TARGETS_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def _end_with_the_supervisor() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
