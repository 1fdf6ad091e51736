"""A TUF repository in memory, whose every part a test can change, and sign with whatever key."""

from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgeloop_agent.core.trust import Target
from edgeloop_agent.errors import MetadataError, MetadataMissingError, TrustUnavailableError
from edgeloop_agent.trust.client import TufClient
from edgeloop_protocol.signed_release import SignedRelease, target_name

NOW = datetime(2026, 12, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
TOP = ("targets", "snapshot", "timestamp")


class Repository:
    """`files` is what a mirror serves. `publish` signs a role anew, as its next version."""

    def __init__(self, expires=LATER):
        self.signed = {
            "root": Root(expires=expires),
            "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "targets": Targets(expires=expires),
        }
        self.keys = {role: [CryptoSigner.generate_ed25519()] for role in self.signed}
        self.files = {}
        self._published = set()
        for role, (key,) in self.keys.items():
            self.root.add_key(key.public_key, role)
        self.publish("root", *TOP)

    @property
    def root(self):
        return self.signed["root"]

    @property
    def timestamp(self):
        return self.signed["timestamp"]

    @property
    def snapshot(self):
        return self.signed["snapshot"]

    @property
    def targets(self):
        return self.signed["targets"]

    def file(self, role):
        return (
            "timestamp.json" if role == "timestamp" else f"{self.signed[role].version}.{role}.json"
        )

    def publish(self, *roles):
        for role in roles:
            signed = self.signed[role]
            signed.version += role in self._published
            self._published.add(role)
            self.files[self.file(role)] = self.document(role)
            if role == "snapshot":
                self.timestamp.snapshot_meta = MetaFile(signed.version)
            elif role not in ("root", "timestamp"):
                self.snapshot.meta[f"{role}.json"] = MetaFile(signed.version)

    def document(self, role, keys=None):
        document = Metadata(self.signed[role])
        for key in self.keys[role] if keys is None else keys:
            document.sign(key, append=True)
        return document.to_bytes()

    def rotate(self, role, keys=1, threshold=1, signed_by=None):
        """New keys for a role, in a root that the old and the new ones sign."""
        old = list(self.keys["root"])
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.keys[role] = [CryptoSigner.generate_ed25519() for _ in range(keys)]
        for key in self.keys[role]:
            self.root.add_key(key.public_key, role)
        self.root.roles[role].threshold = threshold
        now = self.keys["root"]
        self.keys["root"] = [*old, *now] if role == "root" else now
        if signed_by is not None:
            self.keys["root"] = signed_by
        self.publish("root")
        self.keys["root"] = now

    def delegate(self, role, *paths, by="targets", terminating=False):
        """To a role with a key of its own; its documents are the caller's to publish."""
        delegator = self.signed[by]
        if delegator.delegations is None:
            delegator.delegations = Delegations({}, roles={})
        delegator.delegations.roles[role] = DelegatedRole(role, [], 1, terminating, list(paths))
        key = CryptoSigner.generate_ed25519()
        delegator.add_key(key.public_key, role)
        self.keys.setdefault(role, []).append(key)
        self.signed.setdefault(role, Targets(expires=self.targets.expires))

    def add(self, path, content, role="targets", custom=None):
        target = TargetFile.from_data(path, content)
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        self.signed[role].targets[path] = target

    def release(self, package, number, role="targets", **terms):
        """Both targets of a version, published with all above them."""
        release = release_of(package, number, **terms)
        manifest = package.manifest
        for part, content in (("manifest", manifest.canonical()), ("artifact", package.model)):
            name = target_name(manifest.name, manifest.version, part)
            self.add(name, content, role, release.custom())
        self.publish(*dict.fromkeys((role, *TOP)))
        return release


def release_of(package, number, **terms):
    manifest = package.manifest
    document = {
        "model": manifest.name,
        "version": manifest.version,
        "release": number,
        "rollback_floor": max(1, number - 1),
        "runtime": manifest.artifact.runtime,
        "manifest_sha256": manifest.digest(),
        "artifact_sha256": manifest.artifact.digest,
    }
    return SignedRelease(**(document | terms))


class Mirror:
    """A MetadataSource; `files` may be another's than the repository's."""

    def __init__(self, files):
        self.files = files
        self.asked = []

    def fetch(self, name, max_bytes):
        self.asked.append(name)
        if name not in self.files:
            raise MetadataMissingError(f"no {name}")
        if len(self.files[name]) > max_bytes:
            raise MetadataError(f"{name}: longer than the {max_bytes} bytes it may have")
        return self.files[name]


class VerifyingTrust:
    """The port of Trust over the real client, in this process."""

    def __init__(self, kept, source, now=NOW):
        self.kept, self.source, self.now = kept, source, now

    def look_up(self, names):
        try:
            client = TufClient(self.kept, self.source, self.now)
            client.refresh()
            found = {name: client.find(name) for name in names}
        except MetadataError as error:
            raise TrustUnavailableError(str(error)) from error
        return {
            name: Target(target.length, target.hashes, target.custom)
            for name, target in found.items()
            if target is not None
        }
