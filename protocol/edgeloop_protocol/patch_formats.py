"""Names of the patch formats, as offers and inventories give them (EL-ART-4)."""

from typing import Final

TENSORS: Final = "tensors.1"
"""edgeloop_protocol.tensor_patch."""

HDIFF: Final = "hdiff.1"
"""As PyPI hdiffpatch makes and applies it, compressed by zstd."""
