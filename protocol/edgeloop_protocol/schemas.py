"""Writes the wire documents' JSON Schemas: `python -m edgeloop_protocol.schemas DIRECTORY`.

Invariant: the files in docs/spec/schemas are what this writes; a test compares them.
"""

import json
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from edgeloop_protocol.manifest import Manifest, ManifestDraft
from edgeloop_protocol.messages import (
    Ack,
    Desired,
    Hello,
    Presence,
    Reported,
    Request,
    Response,
    TelemetryBatch,
)

DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "up-hello": Hello,
    "up-reported": Reported,
    "up-telemetry": TelemetryBatch,
    "up-presence": Presence,
    "down-desired": Desired,
    "down-ack": Ack,
    "down-request": Request,
    "up-response": Response,
    "manifest": Manifest,
    "model-toml": ManifestDraft,
}


def schema_text(document: type[BaseModel]) -> str:
    schema = document.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def write_schemas(directory: Path) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in DOCUMENTS.items():
        path = directory / f"{name}.schema.json"
        path.write_text(schema_text(document), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edgeloop_protocol.schemas DIRECTORY")
    for written_path in write_schemas(Path(sys.argv[1])):
        print(written_path)
