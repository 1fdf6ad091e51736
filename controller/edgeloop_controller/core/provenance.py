"""How a training run made a version, as an in-toto Statement v1 with SLSA's provenance v1
(https://slsa.dev/spec/v1.0/provenance), so that others' tools can say where a model is from.

Invariants: names no path of the machine. It is not signed: at SLSA's build level 1 it says, and
does not prove.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:edgeloop:training-run:v1"
BUILDER: Final = "urn:edgeloop:controller"


@dataclass(frozen=True)
class Material:
    """Something by name, and its SHA-256 in hexadecimal."""

    name: str
    sha256: str

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "digest": {"sha256": self.sha256}}


def statement(
    subjects: Sequence[Material],
    materials: Sequence[Material],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
    run_id: int,
    began_at: str,
    ended_at: str,
) -> dict[str, Any]:
    """`parameters`: what the run was asked for. `versions`: program → version that ran it. Times
    by RFC 3339."""
    return {
        "_type": STATEMENT,
        "subject": [subject.document() for subject in subjects],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "resolvedDependencies": [material.document() for material in materials],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": dict(versions)},
                "metadata": {
                    "invocationId": f"run/{run_id}",
                    "startedOn": began_at,
                    "finishedOn": ended_at,
                },
            },
        },
    }
