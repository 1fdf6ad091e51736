"""What is signed of a release: whom it is for, what it lets back, and what is refused."""

from typing import Any

import pytest

from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.signed_release import (
    SignedRelease,
    may_install,
    release_of_target,
    target_name,
    target_pattern,
)

M, A = "a" * 64, "b" * 64


def signed(**changed: Any) -> SignedRelease:
    terms: dict[str, Any] = {
        "model": "watch",
        "version": "1.3.0",
        "release": 5,
        "rollback_floor": 4,
        "runtime": "onnx",
        "manifest_sha256": M,
        "artifact_sha256": A,
        **changed,
    }
    return SignedRelease(**terms)


def test_both_targets_give_the_release_back() -> None:
    release = signed(slots=("main",), selector="site=berlin, arch=arm64")
    for part in ("manifest", "artifact"):
        digest = release.sha256_of(part)
        name = target_name("watch", "1.3.0", part)
        assert release_of_target(name, 7, {"sha256": digest}, release.custom()) == release
    assert target_pattern("watch") == "watch/*/*"


@pytest.mark.parametrize(
    ("name", "length", "sha256", "changed", "said"),
    [
        ("watch/1.2.0/manifest", 7, M, {}, "signed as watch@1.3.0"),
        ("watch/1.3.0/artifact", 7, M, {}, "not its release's artifact_sha256"),
        ("watch/1.3.0/manifest", 0, M, {}, "0 bytes"),
        ("watch/1.3.0/manifest", 2**40, M, {}, "the limit is"),
        ("watch/1.3.0/manifest", 7, M, {"rollback_floor": 6}, "above the release"),
        ("watch/1.3.0/manifest", 7, M, {"release": "5"}, "release: "),
        ("watch/1.3.0/manifest", 7, M, {"release": True}, "release: "),
        ("watch/1.3.0/manifest", 7, M, {"release": 2**53}, "release: "),
        ("watch/1.3.0/manifest", 7, M, {"later_key": 1}, "later_key: "),
        ("watch/1.3.0/manifest", 7, M, {"selector": "site="}, "selector: "),
        ("watch/1.3.0/manifest", 7, M, {"selector": "online"}, "cannot know online"),
        ("watch/1.3.0/manifest", 7, M, {"slots": ["a", "a"]}, "more than once"),
        ("watch/1.3.0/manifest", 7, M, {"model": "../watch"}, "model: "),
    ],
)
def test_a_target_that_says_something_else_is_refused(
    name: str, length: int, sha256: str, changed: dict[str, Any], said: str
) -> None:
    custom = {"edgeloop": {**signed().custom()["edgeloop"], **changed}}
    with pytest.raises(TrustError) as caught:
        release_of_target(name, length, {"sha256": sha256}, custom)
    assert name in str(caught.value)
    assert said in str(caught.value)


def test_a_target_without_its_release_is_refused() -> None:
    for custom in (None, {}, {"edgeloop": [1]}):
        with pytest.raises(TrustError, match="missing"):
            release_of_target("watch/1.3.0/manifest", 7, {"sha256": M}, custom)


def test_it_is_for_whom_it_says() -> None:
    everywhere, narrow = signed(), signed(slots=("left",), selector="site=berlin")
    berlin, paris = Labelled("w1", {"site": "berlin"}), Labelled("w2", {"site": "paris"})
    assert everywhere.is_for_device(paris)
    assert everywhere.is_for_slot("main")
    assert narrow.is_for_device(berlin)
    assert not narrow.is_for_device(paris)
    assert narrow.is_for_slot("left")
    assert not narrow.is_for_slot("main")


def test_the_counter_lets_back_what_the_committed_release_lets_back() -> None:
    third, fourth = signed(release=3, rollback_floor=2), signed(release=4, rollback_floor=3)
    fifth = signed(release=5, rollback_floor=4)
    listed = (third, fourth, fifth)
    assert may_install(third, 0, listed)
    assert may_install(fourth, 5, listed)
    assert not may_install(third, 5, listed)
    assert may_install(fifth, 3, listed)
    lowered = signed(release=5, rollback_floor=3)
    assert may_install(third, 5, (third, fourth, lowered))
    assert not may_install(fourth, 5, (third, fourth)), "the fifth is not listed any more"
    assert may_install(fifth, 5, listed)
