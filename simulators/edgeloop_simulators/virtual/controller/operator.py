"""Who plays the script: an operator who publishes, starts and ends rollouts, and sets labels.

Invariants: a step that met a controller that was down, or that died of it, is done again until it
is done; a step that the controller refuses is said, and not tried again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from edgeloop_controller.composition import Parts
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.errors import ConflictError, ControllerError
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store import challengers, devices, rollouts
from edgeloop_protocol.messages import ShadowBudget
from edgeloop_simulators.virtual.controller.host import ControllerHost
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.spec.world import (
    EndChallengers,
    EndRollouts,
    ModelSpec,
    Publish,
    SetLabels,
    StartChallenger,
    StartRollout,
    Step,
)

RETRY_S: Final = 5.0


class Operator:
    def __init__(
        self,
        loop: EventLoop,
        controller: ControllerHost,
        models: Sequence[ModelSpec],
        slot: str,
        observe: Observe,
    ) -> None:
        self._loop = loop
        self._controller = controller
        self._models = models
        self._slot = slot
        self._observe = observe
        self.undone = 0

    def play(self, script: Sequence[Step]) -> None:
        self.undone = len(script)
        for step in script:
            self._loop.call_at(step.at_s, lambda step=step: self._try(step))  # type: ignore[misc]

    def _try(self, step: Step) -> None:
        refusal = ""

        def action(parts: Parts) -> None:
            nonlocal refusal
            try:
                self._do(parts, step)
            except ConflictError as error:
                refusal = str(error)  # most often: it was done before the controller died of it
            except ControllerError as error:
                refusal = str(error)

        if self._controller.run(action):
            self.undone -= 1
            self._see(step, refusal)
        else:
            self._loop.call_in(RETRY_S, lambda: self._try(step))

    def _do(self, parts: Parts, step: Step) -> None:
        services = parts.services
        match step:
            case Publish():
                model = self._models[step.model]
                services.publishing.publish(model.artifact, model.manifest)
            case StartRollout():
                services.rollouts.start(self._request(step))
            case EndRollouts():
                _end(parts, step.action)
            case StartChallenger():
                services.challengers.start(self._challenger(step))
            case EndChallengers():
                with services.database.reading() as session:
                    active = [row.id for row in challengers.active(session)]
                for challenger_id in active:
                    services.challengers.stop(challenger_id)
            case SetLabels():
                with services.database.writing() as session:
                    device = devices.require(session, step.device)
                    device.labels = {**device.labels, **step.labels}

    def _request(self, step: StartRollout) -> RolloutRequest:
        manifest = self._models[step.model].manifest
        return RolloutRequest(
            name=manifest.name,
            version=manifest.version,
            selector=step.selector,
            waves=step.waves,
            terms=RolloutTerms.model_validate(step.terms),
            slot=step.slot or self._slot,
            allow_empty=True,
        )

    def _challenger(self, step: StartChallenger) -> ChallengerRequest:
        manifest = self._models[step.model].manifest
        return ChallengerRequest(
            name=manifest.name,
            version=manifest.version,
            selector=step.selector,
            slot=self._slot,
            budget=ShadowBudget(cpu_fraction=step.cpu_fraction),
        )

    def _see(self, step: Step, refusal: str) -> None:
        data = {"step": type(step).__name__, "refused": refusal}
        self._observe(Seen(self._loop.now_s, "world", "step", data))


def _end(parts: Parts, action: str) -> None:
    services = parts.services
    actions: dict[str, Callable[[int], Any]] = {
        "abort": lambda id_: services.rollouts.abort(id_, "by the script"),
        "pause": services.rollouts.pause,
        "resume": services.rollouts.resume,
    }
    with services.database.reading() as session:
        active = [row.id for row in rollouts.with_status(session, rollouts.ACTIVE)]
    for rollout_id in active:
        actions[action](rollout_id)
