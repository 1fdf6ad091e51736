"""Writes the JSON Schema of scenario files.

Usage: `python -m edgeloop_simulators.virtual.scenario.schemas DIRECTORY`.

Invariant: the file in docs/spec/schemas is what this writes; a test compares them.
"""

import sys
from pathlib import Path
from typing import Final

from edgeloop_protocol.schemas import schema_text
from edgeloop_simulators.virtual.scenario.file import VirtualScenario

FILE: Final = "virtual-scenario.schema.json"


def write_schema(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    path.write_text(schema_text(VirtualScenario), encoding="utf-8")
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edgeloop_simulators.virtual.scenario.schemas DIRECTORY")
    print(write_schema(Path(sys.argv[1])))
