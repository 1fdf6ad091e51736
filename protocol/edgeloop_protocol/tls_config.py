"""`[broker] tls` of agent and controller: the files that a TLS connection to the broker needs.

Invariants: imports no ssl, since runners read configurations too; paths become absolute here, once;
what the files hold is looked at when a connection is made (`tls`), never when the configuration is
read: a file that is bad or not there yet must not keep a device from running its models.
"""

from pathlib import Path
from typing import Annotated, Self

from edgeloop_protocol.config import Config
from edgeloop_protocol.documents import AfterValidator, Field, model_validator

_Path = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class TlsConfig(Config):
    ca_path: _Path | None = Field(
        default=None, description="PEM, of the authority to trust; None: the system's"
    )
    certificate_path: _Path | None = Field(default=None, description="PEM, to show to the broker")
    key_path: _Path | None = Field(default=None, description="None: in certificate_path")
    server_name: str | None = Field(
        default=None, min_length=1, description="in the broker's certificate; None: host"
    )

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.key_path is not None and self.certificate_path is None:
            raise ValueError("key_path is given without certificate_path: give both, or neither")
        return self
