"""Writes the schema of control files: `python -m edgeloop_controller.control.schemas DIRECTORY`.

Invariant: the file in docs/spec/schemas is what this writes; a test compares them.
"""

import json
import sys
from pathlib import Path
from typing import Final

from edgeloop_controller.control.files import ControlFile
from edgeloop_protocol.schemas import schema_text

FILE: Final = "control-file.schema.json"


def control_schema_text() -> str:
    schema = json.loads(schema_text(ControlFile))
    starts_at = schema["$defs"]["Schedule"]["properties"]["starts_at"]
    # TOML has datetimes, which editors check as such strings.
    starts_at["anyOf"].append({"type": "string", "format": "date-time"})
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edgeloop_controller.control.schemas DIRECTORY")
    path = Path(sys.argv[1]) / FILE
    path.write_text(control_schema_text(), encoding="utf-8")
    print(path)
