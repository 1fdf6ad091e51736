"""`make sbom`: a CycloneDX bill of materials for each distribution, of what is installed beside it.

Invariants: components are what the distribution's own requirements and its extras lead to in this
environment, with the hashes that requirements.txt pins; the same environment gives the same bytes.
"""

import re
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS: Final = (
    "edgeloop",
    "edgeloop-protocol",
    "edgeloop-agent",
    "edgeloop-controller",
    "edgeloop-simulators",
)
PINNED: Final = Path(__file__).parents[1] / "requirements.txt"
NAMESPACE: Final = uuid.UUID("5a1f6f0c-6d6c-4b0a-9a3e-8f0d5a3c2b11")


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    hashes = pinned_hashes(PINNED.read_text())
    for name in OURS:
        path = directory / f"{name}.cdx.json"
        path.write_text(bill_of(name, hashes))
        print(path)


def bill_of(name: str, hashes: dict[str, list[str]]) -> str:
    """CycloneDX 1.6 as JSON, valid by its schema."""
    root = distribution(name)
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, f"{name}@{root.version}"))
    bom.metadata.component = _component(root, ComponentType.APPLICATION, [])
    bom.metadata.timestamp = None  # type: ignore[assignment]
    extras = tuple(root.metadata.get_all("Provides-Extra") or ())
    found = dict(sorted(_closure(root, set(), extras)))
    components = {
        key: _component(one, ComponentType.LIBRARY, hashes.get(key, []))
        for key, one in found.items()
    }
    bom.components.update(components.values())
    ours = components | {canonicalize_name(name): bom.metadata.component}
    for key, component in ours.items():
        one = root if key == canonicalize_name(name) else found[key]
        needs = _required(one, extras if one is root else ())
        bom.register_dependency(component, [ours[k] for k in needs if k in ours])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise SystemExit(f"the bill of {name} is not valid: {problem}")
    return text + "\n"


def pinned_hashes(requirements: str) -> dict[str, list[str]]:
    """Name → SHA-256 of each file that may be installed."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=[a-zA-Z0-9])", requirements.replace("\\\n", " ")):
        name = re.match(r"([A-Za-z0-9._-]+)==", entry)
        if name is not None:
            digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
            found[canonicalize_name(name[1])] = sorted(digests)
    return found


def _closure(
    one: Distribution, seen: set[str], extras: tuple[str, ...] = ()
) -> Iterator[tuple[str, Distribution]]:
    for key in _required(one, extras):
        if key in seen:
            continue
        seen.add(key)
        try:
            below = distribution(key)
        except PackageNotFoundError:
            continue  # of another system or of an extra that is not installed
        yield key, below
        yield from _closure(below, seen)


def _required(one: Distribution, extras: tuple[str, ...] = ()) -> list[str]:
    """What it needs here, with these of its extras, and those that others' are asked for by."""
    wanted = []
    for text in one.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            wanted.append(canonicalize_name(requirement.name))
            wanted += _of_extras(requirement)
    return sorted(set(wanted))


def _of_extras(requirement: Requirement) -> Iterator[str]:
    if not requirement.extras:
        return
    try:
        texts = distribution(requirement.name).requires or ()
    except PackageNotFoundError:
        return
    for text in texts:
        needed = Requirement(text)
        marker = needed.marker
        if marker and any(marker.evaluate({"extra": extra}) for extra in requirement.extras):
            yield canonicalize_name(needed.name)


def _component(one: Distribution, kind: ComponentType, digests: list[str]) -> Component:
    name, version = canonicalize_name(one.metadata["Name"]), one.version
    said = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
    is_short = said and len(said) < 80 and "\n" not in said
    licenses = [LicenseFactory().make_from_string(said)] if is_short else []
    return Component(
        name=name,
        version=version,
        type=kind,
        purl=PackageURL("pypi", name=name, version=version),
        bom_ref=f"{name}@{version}",
        licenses=licenses,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests],
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/sbom.py DIRECTORY")
    main(Path(sys.argv[1]))
