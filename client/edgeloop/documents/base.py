"""What every document is made of.

Invariants: a document holds fields and nothing that reads them from anywhere; the API gives these
very classes, so that server and client cannot differ. Stable: keys are only added, and a client
passes over those that it does not know. Times are seconds since 1970 by the controller's clock
unless the key says `device_`.
"""

from typing import Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

ROW_ID_MAX: Final = 2**63 - 1
"""The greatest number of a row that a database can compare."""


class Document(BaseModel):
    model_config = ConfigDict(frozen=True)


T = TypeVar("T")


class Items(Document, Generic[T]):
    items: list[T]


class Page(Document, Generic[T]):
    """`next`: give it as `after` for what follows; null when this was the end."""

    items: list[T]
    next: int | None
