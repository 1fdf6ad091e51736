"""Bugs planted in the real code are found by the seeds that are known to find them."""

import pytest

from edgeloop_agent.core import device
from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.seeds.case import case_of
from edgeloop_simulators.virtual.seeds.case_play import SIMULATOR, play
from edgeloop_simulators.virtual.seeds.mutants import MUTANTS, planted
from edgeloop_simulators.virtual.seeds.mutation import Edit, Mutant, plant

NO_LAW_OF_ITS_OWN = ("", SIMULATOR, "EL-INV-9")
"""A mutant that raises has found nothing: the words put in are wrong."""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found_by_its_seed(name: str, seeds_played: range) -> None:
    """That the seed breaks no law without it is what test_virtual_seeds*.py show."""
    seed = MUTANTS[name].seed
    assert seed in seeds_played, "`make mutants` finds one of those that are played without it"
    with planted(name):
        law = play(case_of(seed)).law
    assert law not in NO_LAW_OF_ITS_OWN, f"seed {seed} does not find {name} ({law or 'no law'})"


def test_there_are_twenty_at_least() -> None:
    assert len(MUTANTS) >= 20


def test_a_mutant_is_gone_afterwards() -> None:
    handle = device.Device.handle
    before = handle.__code__
    edit = Edit("edgeloop_agent.core.device:Device.handle", "self._take(event, now)", "[]")
    with plant(Mutant("takes nothing", (edit,), 0)):
        assert handle.__code__ is not before
    assert handle.__code__ is before


def test_a_mutant_whose_code_has_changed_is_said_so() -> None:
    edit = Edit("edgeloop_agent.core.device:Device.handle", "words that are not there", "")
    mutant = Mutant("grown old", (edit,), 0)
    with pytest.raises(CaseError, match=r"stands 0 times .* the mutant"), plant(mutant):
        pass


def test_an_unknown_mutant_is_said_so() -> None:
    with pytest.raises(CaseError, match="no mutant 'nobody'"), planted("nobody"):
        pass
