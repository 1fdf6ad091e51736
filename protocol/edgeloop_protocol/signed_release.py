"""What a publisher signs about a version: for whom it is, and which releases it lets back.

A version is two targets of TUF metadata, `MODEL/VERSION/manifest` (the bytes of
`Manifest.canonical()`) and `MODEL/VERSION/artifact`; both carry the same `SignedRelease` as
`custom["edgeloop"]` (docs/adr/0031-signed-models.md).

Invariants: pure, and knows no TUF library; a document that does not fit in every point is refused,
an unknown key too: a device installs nothing that it does not wholly understand.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgeloop_protocol import selector as selectors
from edgeloop_protocol.device_facts import Facts
from edgeloop_protocol.errors import SelectorError, TrustError, first_problem
from edgeloop_protocol.limits import (
    ARTIFACT_MAX_BYTES,
    MANIFEST_MAX_BYTES,
    RELEASE_MAX,
    SELECTOR_MAX_CHARS,
    SLOTS_MAX,
)
from edgeloop_protocol.messages import Digest, Name

CUSTOM_KEY: Final = "edgeloop"
Part = Literal["manifest", "artifact"]
PARTS: Final[tuple[Part, Part]] = ("manifest", "artifact")
PART_MAX_BYTES: Final[Mapping[Part, int]] = {
    "manifest": MANIFEST_MAX_BYTES,
    "artifact": ARTIFACT_MAX_BYTES,
}
SHA256: Final = "sha256"

NOT_CERTAIN: Final = frozenset({"online", "quarantine"})
"""Keys of selectors that only the controller can answer: nothing is signed by them."""

Release = Annotated[int, Field(ge=1, le=RELEASE_MAX)]


def target_name(model: str, version: str, part: Part) -> str:
    return f"{model}/{version}/{part}"


def target_pattern(model: str) -> str:
    """The path pattern of a delegation that covers all versions of a model."""
    return f"{model}/*/*"


class SignedRelease(BaseModel):
    """One release of a model. `release` grows within the model, in the order in which versions are
    first signed; a version that is signed again, for others say, keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: Name
    version: Name
    release: Release
    rollback_floor: Release = Field(
        description="the oldest release that a device may go back to once it committed this one"
    )
    slots: tuple[Name, ...] = Field(
        default=(), max_length=SLOTS_MAX, description="of a device, where it may run; empty: any"
    )
    runtime: Name
    selector: str = Field(
        default="",
        max_length=SELECTOR_MAX_CHARS,
        description="of devices, by what they know of themselves; empty: any device",
    )
    manifest_sha256: Digest
    artifact_sha256: Digest

    @field_validator("selector")
    @classmethod
    def _parses(cls, text: str) -> str:
        if not text:
            return text
        try:
            selector = selectors.parse(text)
        except SelectorError as error:
            raise ValueError(str(error)) from None
        uncertain = sorted({term.key for term in selector.terms} & NOT_CERTAIN)
        if uncertain:
            raise ValueError(f"a device cannot know {', '.join(uncertain)} of itself")
        return text

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.rollback_floor > self.release:
            raise ValueError(
                f"rollback_floor {self.rollback_floor} is above the release, {self.release}"
            )
        if len(set(self.slots)) < len(self.slots):
            raise ValueError("slots name one more than once")
        return self

    def sha256_of(self, part: Part) -> str:
        return self.manifest_sha256 if part == "manifest" else self.artifact_sha256

    def is_for_slot(self, slot: str) -> bool:
        return not self.slots or slot in self.slots

    def is_for_device(self, device: Facts) -> bool:
        """`device` as it knows itself: never with labels that the controller sent."""
        return not self.selector or selectors.parse(self.selector).matches(device)

    def custom(self) -> dict[str, Any]:
        """The `custom` of both of its targets."""
        return {CUSTOM_KEY: self.model_dump(mode="json")}


def release_of_target(
    name: str, length: int, hashes: Mapping[str, str], custom: Mapping[str, Any] | None
) -> SignedRelease:
    """What one target says, and that it says it of itself. Raises TrustError naming the target.

    `length` in bytes; `hashes` by algorithm, lower-case hex.
    """
    document = (custom or {}).get(CUSTOM_KEY)
    if not isinstance(document, dict):
        raise TrustError(f"target {name}: custom.{CUSTOM_KEY} is missing")
    try:
        release = SignedRelease.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise TrustError(f"target {name}: {first_problem(error)}") from error
    part = next((p for p in PARTS if name == target_name(release.model, release.version, p)), None)
    if part is None:
        raise TrustError(f"target {name}: it is signed as {release.model}@{release.version}")
    if hashes.get(SHA256) != release.sha256_of(part):
        raise TrustError(f"target {name}: its sha256 is not its release's {part}_sha256")
    if not 0 < length <= PART_MAX_BYTES[part]:
        raise TrustError(f"target {name}: {length} bytes; the limit is {PART_MAX_BYTES[part]}")
    return release


def rollback_floor(committed: int, listed: Iterable[SignedRelease]) -> int:
    """The oldest release that may be installed where release `committed` was once committed.

    `listed`: the model's releases in the current verified metadata. What is not listed any more
    lets nothing older back: its floor is itself.
    """
    return next((r.rollback_floor for r in listed if r.release == committed), committed)


def may_install(release: SignedRelease, committed: int, listed: Iterable[SignedRelease]) -> bool:
    """By the counter alone; `committed` is the slot's highest of this model, 0 for none."""
    return committed == 0 or release.release >= rollback_floor(committed, listed)
