"""What a person takes from a controller, which is not to be believed: all of it is verified.

Invariants: metadata is verified by the chain from the root in the person's own directory; files
are hashed here; raises TrustError, and the client's errors.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Root

from edgeloop.client import Client, quoted
from edgeloop.errors import ApiError
from edgeloop_controller.trust.acceptance import verification
from edgeloop_controller.trust.home import Home
from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import (
    ROOT,
    TARGETS,
    Document,
    Standing,
    file_name,
    read_document,
    read_root,
    read_targets,
)
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES, MANIFEST_MAX_BYTES
from edgeloop_protocol.manifest import Manifest, parse_manifest

ROOTS_MAX: Final = 1024
"""Of one walk along the chain."""


@dataclass(frozen=True)
class Version:
    """A published version, hashed here; sizes in bytes."""

    manifest: Manifest
    manifest_sha256: str
    manifest_size: int
    artifact_sha256: str
    artifact_size: int
    is_local: bool
    """The artifact is a file that the person named, and not what the controller gave."""


def fetch_standing(client: Client, home: Home) -> Standing:
    """What stands, verified from the root that the person knows, which becomes the newest."""
    root = _walk(client, home.root())
    status = client.get("/trust")
    if not status["initialised"]:
        raise TrustError(
            "trust is not initialised at this controller",
            "`edgeloop trust init`, or `edgeloop trust countersign` where that waits for you",
        )
    versions = {str(one["role"]): int(one["version"]) for one in status["roles"]}
    targets = _targets(client, TARGETS, versions)
    standing = Standing(root, {TARGETS: targets})
    _require_signed(standing)
    roles = {TARGETS: targets}
    for role in delegated_roles(targets.signed):
        if role in versions:
            roles[role] = _targets(client, role, versions)
    standing = Standing(root, roles)
    _require_signed(standing)
    seen = {ROOT: root.version, **{role: one.version for role, one in roles.items()}}
    home.check_seen(seen)
    home.keep_root(root)
    home.keep_seen(seen)
    return standing


def fetch_waiting(client: Client) -> list[dict[str, Document[Any]]]:
    """Proposals as they wait: nothing in them is verified."""
    return [
        {role: read_document(role, _bytes(one)) for role, one in item["documents"].items()}
        for item in client.get("/trust/waiting")["items"]
    ]


def fetch_version(client: Client, name: str, version: str, artifact: Path | None) -> Version:
    """The manifest from the controller; the artifact from the file, or else from there too. Both
    are hashed here. Raises TrustError where they contradict each other or the name."""
    row = client.get(f"/models/{quoted(name)}/versions/{quoted(version)}")
    asked = str(row["manifest_digest"])
    content = _manifest_bytes(client, asked)
    if hashlib.sha256(content).hexdigest() != asked:
        raise TrustError(f"what the controller gives as manifest {asked[:12]} is another file")
    manifest = parse_manifest(content)
    if (manifest.name, manifest.version) != (name, version):
        raise TrustError(
            f"the controller gives the manifest of {manifest.name}@{manifest.version} as "
            f"{name}@{version}'s"
        )
    digest, size = _hash_of(client, manifest, artifact)
    if (digest, size) != (manifest.artifact.digest, manifest.artifact.size_bytes):
        where = str(artifact) if artifact is not None else "what the controller gives"
        raise TrustError(
            f"{where} is not the artifact of {name}@{version}: its sha256 is {digest}, the "
            f"manifest names {manifest.artifact.digest}",
            "sign only what you made: look which of the two is yours",
        )
    return Version(manifest, asked, len(content), digest, size, artifact is not None)


def _walk(client: Client, root: Document[Root]) -> Document[Root]:
    """The newest root that the chain from this one leads to."""
    for _ in range(ROOTS_MAX):
        try:
            answer = client.get(f"/trust/metadata/{file_name(ROOT, root.version + 1)}")
        except ApiError as error:
            if error.status == 404:
                return root
            raise
        after = read_root(_bytes(answer))
        metadata = after.metadata
        try:
            result = after.signed.get_root_verification_result(
                root.signed, metadata.signed_bytes, metadata.signatures
            )
        except ValueError as error:
            raise TrustError(f"root {root.version + 1}: {error}") from error
        if not result:
            raise TrustError(
                f"root {after.version} is not signed by the keys of root {root.version}",
                "the controller is not to be trusted, or your root.json is another fleet's",
            )
        root = after
    raise TrustError(f"more than {ROOTS_MAX} roots follow: begin from a newer root.json")


def _targets(client: Client, role: str, versions: dict[str, int]) -> Any:
    if role not in versions:
        raise TrustError(f"the controller has no metadata of {role}")
    version = versions[role]
    document = read_targets(role, _bytes(client.get(f"/trust/metadata/{version}.{role}.json")))
    if document.version != version:
        raise TrustError(f"{role}: version {version} was asked for; {document.version} came")
    return document


def _require_signed(standing: Standing) -> None:
    for role, document in standing.roles.items():
        if not verification(role, standing):
            raise TrustError(
                f"{role} {document.version}, as the controller gives it, is not signed by who may",
                "sign nothing on top of it: the controller is not to be trusted",
            )


def _manifest_bytes(client: Client, digest: str) -> bytes:
    content = bytearray()
    for chunk in client.stream(f"/artifacts/{digest}"):
        content += chunk
        if len(content) > MANIFEST_MAX_BYTES:
            raise TrustError(f"manifest {digest[:12]} is above {MANIFEST_MAX_BYTES} bytes")
    return bytes(content)


def _hash_of(client: Client, manifest: Manifest, artifact: Path | None) -> tuple[str, int]:
    if artifact is None:
        return _hash(client.stream(f"/artifacts/{manifest.artifact.digest}"))
    try:
        with artifact.open("rb") as file:
            return _hash(iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise TrustError(f"{artifact}: {error.strerror}") from error


def _hash(chunks: Iterable[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > ARTIFACT_MAX_BYTES:
            raise TrustError(f"the artifact is above {ARTIFACT_MAX_BYTES} bytes")
    return digest.hexdigest(), size


def _bytes(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
