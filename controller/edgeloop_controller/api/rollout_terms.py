"""The documents that hold a rollout's terms, which are the core's own; see `edgeloop.documents`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents import rollouts
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.services.planning import INSTALL_S_DEFAULT
from edgeloop_controller.services.rollouts import IfBusy
from edgeloop_protocol.messages import Name


class RolloutStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    version: str
    selector: str = "all"
    waves: Annotated[list[str], Field(min_length=1, max_length=32)] = ["1", "5%", "25%", "100%"]
    slot: Name = "main"
    allow_empty: bool = False
    if_busy: IfBusy = IfBusy.REFUSE
    terms: RolloutTerms = RolloutTerms()


class RolloutPlanRequest(RolloutStart):
    install_s: Annotated[float, Field(gt=0, le=86_400)] = INSTALL_S_DEFAULT


class RolloutDetail(rollouts.RolloutDetail):
    terms: RolloutTerms
