"""The first half of the seeds that every change must pass (`SEEDS` in conftest.py)."""

import pytest

from edgeloop_simulators.virtual.seeds.explore import play_seed
from edgeloop_simulators.virtual.seeds.shrink import shrink, story

HALF = 0
SHRUNK_BY_MAX = 60


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(300)  # a failure is shrunk first
def test_no_seed_breaks_a_law(seed_group: range) -> None:
    """EL-INV-1 … EL-INV-15."""
    for seed in seed_group:
        played = play_seed(seed)
        if played.law:
            pytest.fail("\n".join(story(shrink(played, SHRUNK_BY_MAX))), pytrace=False)
