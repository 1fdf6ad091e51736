"""Runs the notebooks in docs/ and writes their outputs: `make notebooks`.

Invariant: nothing of this machine is kept: no timing, no path.
"""

from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

NOTEBOOKS: Final = Path(__file__).parents[1] / "docs" / "notebooks"
CELL_TIMEOUT_S: Final = 180


def main() -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"running {path.name}")
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=CELL_TIMEOUT_S, record_timing=False).execute()
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
