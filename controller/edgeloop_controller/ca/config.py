"""`[ca]` and `[enrolment]` of controller.toml."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from edgeloop_protocol.config import Config

DAY_S = 86_400.0


class CaConfig(Config):
    """Nothing: an authority of the controller's own, below `<data_dir>/ca`."""

    certificate_path: Path | None = Field(
        default=None, description="PEM, of another authority's intermediate that signs here"
    )
    key_path: Path | None = Field(default=None, description="PEM, its key, chmod 600")
    chain_path: Path | None = Field(
        default=None, description="PEM, the authorities above it, the root too"
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate_path is None) != (self.key_path is None):
            raise ValueError("give certificate_path and key_path, or neither")
        if self.chain_path is not None and self.certificate_path is None:
            raise ValueError("chain_path is given without certificate_path and key_path")
        return self


class EnrolmentConfig(Config):
    certificate_lifetime_s: float = Field(default=30 * DAY_S, ge=60, le=825 * DAY_S)
    renew_after_expiry_s: float = Field(
        default=30 * DAY_S, ge=0, description="a device that was away for as long comes back"
    )
    approval_queue: bool = Field(
        default=True, description="devices without a token wait for a person; false: refused"
    )
