"""The port of inference runtimes, and how one is found: a plug-in by the manifest's runtime name.

A runtime is a class of the entry-point group `edgeloop.runtimes`; importing its module imports the
runtime itself, which only a runner and the inventory's probe do. Held to one contract suite:
tests/contracts/test_runtime_contract.py. Invariants of every runtime: a model is loaded from the
verified bytes, never from a path; what it raises is ModelLoadError; one thread computes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeloop_agent import plugins
from edgeloop_agent.errors import ModelLoadError, PluginError
from edgeloop_protocol.manifest import Manifest, TensorSpec
from edgeloop_protocol.messages import RuntimeInfo

Feeds = Mapping[str, NDArray[Any]]


class Session(Protocol):
    """A loaded model. State that it keeps inside lasts from run to run until `reset`."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs, in that order, in arrays of the caller's own."""

    def bind(self, feeds: Feeds, output: str, into: NDArray[Any]) -> Callable[[], None]:
        """A call that runs the model on what `feeds` hold then and writes `output` to `into`.

        For the hot path: the arrays are C-contiguous, of the model's types, and stay the same. The
        call raises ModelLoadError when the output does not have the form of `into`.
        """

    def reset(self) -> None:
        """Forget the examples before, as if just loaded."""


class Runtime(Protocol):
    """Constructed without arguments."""

    def load(self, model: bytes, manifest: Manifest) -> Session:
        """Raises ModelLoadError."""

    def probe(self) -> RuntimeInfo:
        """What it is and can do, found out by asking it; `name` is the entry point's."""


def runtime_named(name: str) -> Runtime:
    """Raises ModelLoadError: a version that needs a runtime that is not there cannot be loaded."""
    try:
        runtime: Runtime = plugins.load(plugins.RUNTIMES, name)()
    except PluginError as error:
        raise ModelLoadError(str(error)) from error
    return runtime
