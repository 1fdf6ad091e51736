"""What a child needs to know of a model to run it on feature vectors."""

from typing import Self

from edgeloop_protocol.manifest import Feed, Manifest, Strict, TensorSpec


class Interface(Strict):
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    feeds: tuple[Feed, ...] = ()
    features: tuple[str, ...]
    stateful: bool = False

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        return cls(
            runtime=manifest.artifact.runtime,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            feeds=manifest.feeds,
            features=tuple(feature.name for feature in manifest.features),
            stateful=manifest.stateful,
        )
