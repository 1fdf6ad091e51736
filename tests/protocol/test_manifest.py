"""The manifest: one identity by content, no contradictions (EL-MAN-1, EL-MAN-3)."""

import json
from typing import Any

import pytest

from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Manifest, parse_manifest

MINIMAL: dict[str, Any] = {
    "name": "watch",
    "version": "1",
    "artifact": {"digest": "a" * 64, "size_bytes": 10, "opset": 17, "ir_version": 8},
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 2]}],
    "outputs": [{"name": "p", "dtype": "float32", "shape": [None, 2]}],
    "scores_output": "p",
    "features": [{"name": "ax_mean", "sensor": "ax"}, {"name": "ax_std", "sensor": "ax"}],
    "labels": ["still", "moving"],
}


def _parse(**changes: Any) -> Manifest:
    return parse_manifest(json.dumps({**MINIMAL, **changes}).encode())


def test_identity_is_the_content() -> None:
    """EL-MAN-1: key order and spacing do not matter, any change of content does."""
    manifest = _parse()
    reordered = json.dumps(dict(reversed(MINIMAL.items())), indent=4).encode()
    assert parse_manifest(reordered).digest() == manifest.digest()
    assert parse_manifest(manifest.canonical()) == manifest
    changed = _parse(artifact={**MINIMAL["artifact"], "digest": "b" * 64})
    assert changed.digest() != manifest.digest()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scores_output": "q"}, "scores_output 'q' is not among the outputs"),
        ({"labels": []}, "labels"),
        ({"labels": ["still", "still"]}, "labels name still more than once"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        (
            {
                "preprocessing": {
                    "kind": "window_statistics",
                    "rows": 10,
                    "channels": ["ax"],
                    "statistics": ["mean", "max"],
                }
            },
            "features do not match what preprocessing computes",
        ),
        ({"preprocessing": {"kind": "window_statistics"}}, "needs rows, channels and statistics"),
        ({"golden": {"inputs": [[1, 2]], "outputs": []}}, "golden inputs and outputs differ"),
        (
            {
                "baseline": {
                    "count": 5,
                    "features": [],
                    "confidence": {"edges": [], "shares": [1]},
                    "predictions": [],
                }
            },
            "baseline and features differ in number",
        ),
    ],
)
def test_contradictions_are_refused_in_words(changes: dict[str, Any], expected: str) -> None:
    """EL-MAN-3."""
    with pytest.raises(ManifestError, match=expected):
        _parse(**changes)


def test_an_endless_manifest_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ManifestError, match="the limit is"):
        parse_manifest(b" " * (4 * 1024 * 1024 + 1))
