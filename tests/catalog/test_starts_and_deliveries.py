from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cross_lora_core.catalog import Catalog, DeliveryRecord
from cross_lora_core.errors import ConfigurationError
from tests.support.rows import a_base, a_migration, a_result, an_adapter, an_item

SPEC = {"rank": 320}


def receive(catalog: Catalog, delivery: str = "d1", base: str | None = "old") -> tuple[DeliveryRecord, bool]:
    with catalog.begin() as work:
        return work.receive(
            sender="mlflow", delivery=delivery, summary="tag deprecated", base=base, successor="new"
        )


def settle(catalog: Catalog, state: str) -> None:
    chosen = receive(catalog)[0].id
    with catalog.begin() as work:
        work.settle_delivery(chosen, state=state, reason="why", flow_run="run")


# what is left to move


@pytest.mark.parametrize(
    ("status", "verdict"), [("done", "no_effect"), ("done", "harmful"), ("refused", "refused")]
)
def test_an_honest_verdict_settles_an_adapter_for_its_spec_only(catalog: Catalog, status: str, verdict: str):
    with catalog.begin() as work:
        source, target = a_base(work, "old"), a_base(work, "new")
        adapter = an_adapter(work, source)
        item = an_item(work, a_migration(work, source), adapter, target)
        assert work.unsettled_adapters(source.id, target.id, SPEC) == [adapter]  # planned is not settled
        work.settle_item(item.id, status=status, verdict=verdict, reason="", evidence={})
        assert work.unsettled_adapters(source.id, target.id, SPEC) == []
        assert work.unsettled_adapters(source.id, target.id, {"rank": 8}) == [adapter]
        assert work.unsettled_adapters(source.id, a_base(work, "other").id, SPEC) == [adapter]


def test_new_and_failed_adapters_are_left_and_promotable_ones_are_not(catalog: Catalog):
    with catalog.begin() as work:
        moved = a_result(work, verdict="migrated")
        source, target = work.base_named("old"), work.base(moved.target_base_id)
        fails, fresh = (an_adapter(work, source, name) for name in ("fails", "fresh"))
        item = an_item(work, moved.migration_id, fails, target)
        work.settle_item(item.id, status="failed", verdict="failed", reason="full disk", evidence={})
        assert work.unsettled_adapters(source.id, target.id, {"rank": 8}) == [fails, fresh]
        again = an_adapter(work, source, "tickets", digest="trained again")
        assert again in work.unsettled_adapters(source.id, target.id, SPEC)


# starts


def test_a_pair_has_one_open_start_at_a_time(catalog: Catalog):
    with catalog.begin() as work:
        source, target = a_base(work, "old").id, a_base(work, "new").id
        assert work.open_start(source, target) is None
        first = work.add_start(source, target, {"source": "old"})
    with catalog.begin() as work:
        assert work.open_start(source, target) == first
        assert work.open_start(target, source) is None
        work.note_start(first.id, "run 1")
        work.end_start(first.id)
        assert work.open_start(source, target) is None
        second = work.add_start(source, target, {})
    assert (first.number, second.number) == (1, 2)
    assert first.key != second.key
    with catalog.begin() as work:
        assert [one.flow_run for one in work.starts()] == [None, "run 1"]
        ended = work.starts()[1].ended_at
        work.end_start(first.id)
        assert work.starts()[1].ended_at == ended


def test_of_sixteen_who_see_the_need_one_opens_the_start(url: str):
    with Catalog.open(url).begin() as work:
        source, target = a_base(work, "old").id, a_base(work, "new").id
    barrier = threading.Barrier(16)

    def compete(_: int) -> str:
        catalog = Catalog.open(url)
        barrier.wait(timeout=60)
        with catalog.begin() as work:
            key = (work.open_start(source, target) or work.add_start(source, target, {})).key
        catalog.close()
        return key

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(compete, range(16), timeout=120))) == 1
    with Catalog.open(url).begin() as work:
        assert len(work.starts()) == 1


# deliveries


def test_a_delivery_is_one_row_however_often_it_comes(catalog: Catalog):
    first, done = receive(catalog)
    assert (first.state, done) == ("received", False)
    assert receive(catalog) == (first, False)
    with catalog.begin() as work:
        assert work.unfinished_deliveries() == [first]
        other, _ = work.receive(sender="generic", delivery="d1", summary="", base="old", successor=None)
    assert other.id != first.id


def test_a_started_delivery_is_done_with_and_others_are_taken_up_again(catalog: Catalog):
    settle(catalog, "failed")
    with catalog.begin() as work:
        assert work.unfinished_deliveries() == []
        assert [one.reason for one in work.unfinished_deliveries(failed=True)] == ["why"]
    again, done = receive(catalog)
    assert (again.state, again.reason, done) == ("received", "", False)
    settle(catalog, "started")
    again, done = receive(catalog)
    assert (again.state, again.flow_run, done) == ("started", "run", True)


def test_an_ignored_delivery_counts_when_a_rule_for_it_is_there(catalog: Catalog):
    ignored, _ = receive(catalog, base=None)
    assert (ignored.state, ignored.reason) == ("ignored", "no rule is about this event")
    assert receive(catalog)[0].state == "received"
    with catalog.begin() as work:
        assert len(work.deliveries()) == 1


def test_sixteen_receivers_of_one_delivery_make_one_row(url: str):
    Catalog.open(url).close()
    barrier = threading.Barrier(16)

    def compete(_: int) -> int:
        catalog = Catalog.open(url)
        barrier.wait(timeout=60)
        found, _ = receive(catalog)
        catalog.close()
        return found.id

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(compete, range(16), timeout=120))) == 1


def test_an_identifier_that_is_too_long_is_refused(catalog: Catalog):
    with pytest.raises(ConfigurationError, match=r"deliveries\.delivery"):
        receive(catalog, delivery="x" * 201)
