"""Numbers of rows, as they come in paths and queries: what a database can compare."""

from typing import Annotated, Final

from fastapi import Path

ROW_ID_MAX: Final = 2**63 - 1

RowId = Annotated[int, Path(le=ROW_ID_MAX, ge=-ROW_ID_MAX)]
