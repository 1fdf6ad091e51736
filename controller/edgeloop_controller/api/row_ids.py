"""Numbers of rows, as they come in paths and queries: what a database can compare."""

from typing import Annotated

from fastapi import Path

from edgeloop.documents.base import ROW_ID_MAX

RowId = Annotated[int, Path(le=ROW_ID_MAX, ge=-ROW_ID_MAX)]
