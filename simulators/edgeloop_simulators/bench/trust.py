"""What verifying signed metadata adds to an install: the agent's own verifier, over loopback HTTP.

To inference it adds nothing: what runs is asked for no signature, and no runner imports any of it.
"""

import http.server
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from edgeloop_agent.shell.trust_process import TrustProcess
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.signed_release import PARTS, SignedRelease, target_name
from edgeloop_simulators.bench.table import Row

VERSIONS: Final = 500
"""In one targets.json, as of a publisher that has signed for years."""
ROUNDS: Final = 9
GOAL_MS: Final = 300.0
GOAL: Final = "the most that it may add"


def trust_rows(directory: Path) -> Iterator[Row]:
    files = _repository()
    root = directory / "root.json"
    root.write_bytes(files["1.root.json"])
    newest = [target_name("watch", f"1.{VERSIONS - 1}.0", part) for part in PARTS]
    with _served(files) as url:
        numbers = iter(range(ROUNDS))

        def first() -> None:
            store = directory / f"trust-{next(numbers)}"
            assert len(TrustProcess(store, root, url, SystemClock()).look_up(newest)) == len(PARTS)

        again = TrustProcess(directory / "trust-0", root, url, SystemClock())
        first_ms, _ = _median_ms(first)
        again_ms, processor_ms = _median_ms(lambda: again.look_up(newest))
    what = f"of {VERSIONS} versions"
    yield Row(f"verifying before an install, {what}", again_ms, GOAL_MS, "ms", GOAL)
    yield Row("of it, processor time", processor_ms, GOAL_MS, "ms", GOAL)
    yield Row(f"the first time, {what}", first_ms, GOAL_MS, "ms", GOAL)


def _median_ms(look_up: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the child's processor time."""
    took: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        began, spent = time.perf_counter(), _children_s()
        look_up()
        took.append((time.perf_counter() - began, _children_s() - spent))
    by_clock, on_processor = (statistics.median(column) for column in zip(*took, strict=True))
    return by_clock * 1000, on_processor * 1000


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _repository() -> dict[str, bytes]:
    expires = datetime.now(UTC) + timedelta(days=1)
    roles: dict[str, Any] = {
        "root": Root(expires=expires),
        "targets": Targets(expires=expires),
        "snapshot": Snapshot(expires=expires),
        "timestamp": Timestamp(expires=expires),
    }
    root, targets = roles["root"], roles["targets"]
    for number in range(VERSIONS):
        release = _release(number + 1, f"1.{number}.0")
        for part in PARTS:
            name = target_name(release.model, release.version, part)
            hashes = {"sha256": release.sha256_of(part)}
            targets.targets[name] = TargetFile(1000, hashes, name, {"custom": release.custom()})
    keys = {role: CryptoSigner.generate_ed25519() for role in roles}
    for role, key in keys.items():
        root.add_key(key.public_key, role)
    files = {}
    for role, signed in roles.items():
        document = Metadata(signed)
        document.sign(keys[role])
        files["timestamp.json" if role == "timestamp" else f"1.{role}.json"] = document.to_bytes()
    return files


def _release(number: int, version: str) -> SignedRelease:
    return SignedRelease(
        model="watch",
        version=version,
        release=number,
        rollback_floor=max(1, number - 1),
        slots=("main",),
        runtime="onnx",
        selector="arch in (x86_64, aarch64)",
        manifest_sha256=f"{number:064x}",
        artifact_sha256=f"{number:064x}",
    )


@contextmanager
def _served(files: dict[str, bytes]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.rpartition("/")[2], b"")
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
