from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cross_lora_core.catalog import Catalog


def take(catalog: Catalog, holder: str, seconds: float = 60) -> str:
    with catalog.begin() as work:
        return work.take_lease("factors/x", holder, seconds).holder


def test_a_lease_has_one_holder_until_it_ends(catalog: Catalog):
    assert take(catalog, "a") == "a"
    assert take(catalog, "b") == "a"
    with catalog.begin() as work:
        work.end_lease("factors/x", "b")  # not b's to end
    assert take(catalog, "b") == "a"
    with catalog.begin() as work:
        work.end_lease("factors/x", "a")
        assert work.lease("factors/x") is None
    assert take(catalog, "b") == "b"


def test_an_expired_lease_is_free_and_an_extended_one_is_not(catalog: Catalog):
    take(catalog, "a", seconds=0)
    assert take(catalog, "b") == "b"
    with catalog.begin() as work:
        before = work.lease("factors/x").expires_at
        assert work.take_lease("factors/x", "b", 120).expires_at > before
    assert take(catalog, "a") == "b"


def test_of_sixteen_at_once_one_gets_it(url: str):
    Catalog.open(url).close()
    start = threading.Barrier(16)

    def compete(number: int) -> str:
        catalog = Catalog.open(url)
        start.wait(timeout=60)
        try:
            return take(catalog, f"worker {number}")
        finally:
            catalog.close()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(compete, range(16), timeout=120))) == 1
