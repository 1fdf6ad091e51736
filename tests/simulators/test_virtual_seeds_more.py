"""The second half, in a file of its own: each goes to one of two workers (`--dist loadfile`)."""

import pytest

from edgeloop_simulators.virtual.seeds.explore import play_seed
from edgeloop_simulators.virtual.seeds.shrink import shrink, story

HALF = 1
SHRUNK_BY_MAX = 60


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(300)  # a failure is shrunk first
def test_no_seed_breaks_a_law(seed_group: range) -> None:
    for seed in seed_group:
        played = play_seed(seed)
        if played.law:
            pytest.fail("\n".join(story(shrink(played, SHRUNK_BY_MAX))), pytrace=False)
