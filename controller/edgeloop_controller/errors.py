"""The error root of the controller.

Invariants: an error's text says what, where and how to mend it; `code` is the stable name that
people and programs see (docs/ARCHITECTURE.md: errors); no HTTP status stands here (`api.errors`).
"""

from typing import ClassVar


class ControllerError(Exception):
    """Something that the controller refuses or cannot do; `hint` says how to mend it."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotFoundError(ControllerError):
    """A device, version, rollout, run, policy or artifact of that name does not exist."""

    code = "not_found"


class ConflictError(ControllerError):
    """The request contradicts what is already so."""

    code = "conflict"


class VersionConflictError(ConflictError):
    """The version exists with other bytes: versions are immutable."""

    code = "version_conflict"


class NoAnswerError(ControllerError):
    """A device that was asked something did not answer in time."""

    code = "no_answer"


class RefusedInputError(ControllerError):
    """What was given cannot be used."""

    code = "refused_input"


class TooLargeError(RefusedInputError):
    """What was given is above a named limit."""

    code = "too_large"


class PackagingError(RefusedInputError):
    """A model file, a draft and a baseline do not make a package; names what contradicts what."""

    code = "bad_package"


class SignatureError(RefusedInputError):
    """A message that says to be of a known sender is not signed by it, or not now."""

    code = "bad_signature"


class UnauthenticatedError(ControllerError):
    """Who asks did not say who they are, or cannot prove it."""

    code = "unauthenticated"


class ForbiddenError(ControllerError):
    """Who asks may not do that."""

    code = "forbidden"


class IdentityProviderError(ControllerError):
    """The identity provider cannot be asked, or does not answer as one does."""

    code = "identity_provider"


class EnrolmentRefusedError(ControllerError):
    """A device that asks for a certificate gets none: its token, its old certificate, a person."""

    code = "enrolment_refused"


class EnrolmentFullError(ControllerError):
    """Too many devices wait for a person's approval."""

    code = "enrolment_full"


class MlflowError(ControllerError):
    """The MLflow server cannot be asked, or does not answer as MLflow does."""

    code = "mlflow_failed"


class SelectorError(RefusedInputError):
    """A selector that does not parse; names the position and the mend."""

    code = "bad_selector"


class WaveError(RefusedInputError):
    """Waves that do not parse or do not ascend."""

    code = "bad_waves"


class PolicyError(RefusedInputError):
    """A policy file that cannot be used."""

    code = "bad_policy"


class TrainingError(ControllerError):
    """A training run cannot be prepared or started."""

    code = "training_failed"


class ArtifactError(ControllerError):
    """The artifact store cannot keep or give bytes."""

    code = "artifact_store"


class StartError(ControllerError):
    """The controller cannot start: a port in use, a directory that cannot be written."""

    code = "cannot_start"
