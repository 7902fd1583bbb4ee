"""Changes and questions, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest

from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import ConfigurationError, FinalError, RecordConflict, RecordNotFound
from tests.support.rows import a_base, a_migration, a_result, an_adapter, an_item


def test_registering_twice_changes_nothing(catalog: Catalog):
    with catalog.begin() as work:
        base = a_base(work)
        adapter = an_adapter(work, base)
    with catalog.begin() as work:
        assert a_base(work) == base
        assert an_adapter(work, base) == adapter
        assert work.bases() == [base]
        assert work.adapters() == [adapter]


def test_a_base_never_changes_under_its_name(catalog: Catalog):
    with catalog.begin() as work:
        a_base(work, digest="a" * 64)
    with pytest.raises(RecordConflict, match="another --name"), catalog.begin() as work:
        a_base(work, digest="b" * 64)


def test_a_base_that_moved_is_found_where_it_is_now(catalog: Catalog):
    with catalog.begin() as work:
        a_base(work)
        moved = work.add_base(
            name="old", digest="digest of old", location="/elsewhere", family="llama", layers=30, d_model=576
        )
        assert moved.location == "/elsewhere"
        assert work.base_with_digest("digest of old") == moved
        assert work.base_with_digest("unknown") is None


def test_an_adapter_belongs_to_one_base(catalog: Catalog):
    with catalog.begin() as work:
        an_adapter(work, a_base(work, "old"))
    with pytest.raises(RecordConflict, match="'old'"), catalog.begin() as work:
        an_adapter(work, a_base(work, "new"))


def test_an_ad_hoc_adapter_can_be_registered_and_stays_so(catalog: Catalog):
    with catalog.begin() as work:
        base = a_base(work)
        an_adapter(work, base, origin="ad hoc")
        assert work.adapters_on(base.id) == []
        an_adapter(work, base, origin="registered", owner="team a", evaluation="/rows")
        assert [one.owner for one in work.adapters_on(base.id)] == ["team a"]
        again = an_adapter(work, base, origin="ad hoc")
        assert (again.origin, again.owner, again.evaluation) == ("registered", "team a", "/rows")


def test_the_newest_content_of_a_name_counts(catalog: Catalog):
    with catalog.begin() as work:
        base = a_base(work)
        an_adapter(work, base, digest="first")
        newer = an_adapter(work, base, digest="second")
        assert work.adapters_on(base.id) == [newer]
        assert work.adapter_named("tickets", base.id) == newer
        assert work.adapter_named("other", base.id) is None


def test_which_bases_are_due(catalog: Catalog):
    today = date(2027, 1, 1)
    with catalog.begin() as work:
        for name in ("now", "past", "future", "orphan", "active", "next"):
            a_base(work, name)
        work.deprecate_base("now", on=None, successor="next")
        work.deprecate_base("past", on=today, successor="next")
        work.deprecate_base("future", on=today + timedelta(days=1), successor="next")
        work.deprecate_base("orphan", on=None, successor=None)
        assert [one.name for one in work.bases_due(today)] == ["now", "past"]


def test_deprecating_what_is_not_there(catalog: Catalog):
    with pytest.raises(RecordNotFound, match="base list"), catalog.begin() as work:
        work.deprecate_base("absent", on=None, successor=None)


def test_the_same_request_is_the_same_migration(catalog: Catalog):
    with catalog.begin() as work:
        base = a_base(work)
        first = a_migration(work, base)
        work.finish_migration(first, "finished")
    with catalog.begin() as work:
        assert a_migration(work, base) == first
        assert work.migration(first).status == "running"
        other = a_migration(work, base, "another request")
        assert [one.id for one in work.migrations()] == [other, first]


def test_the_latest_migration_is_the_one_started_last(catalog: Catalog):
    with catalog.begin() as work:
        assert work.latest_migration() is None
        base = a_base(work)
        first = a_migration(work, base)
        a_migration(work, base, "second")
    with catalog.begin() as work:
        a_migration(work, base)
        latest = work.latest_migration()
        assert latest is not None
        assert latest.id == first


def test_an_item_keeps_what_became_of_it(catalog: Catalog):
    with catalog.begin() as work:
        item = a_result(work)
    with catalog.begin() as work:
        source, target = work.base_named("old"), work.base_named("new")
        assert source is not None
        assert target is not None
        adapter = work.adapter_named("tickets", source.id)
        assert adapter is not None
        again = an_item(work, item.migration_id, adapter, target)
        assert again == item
        assert again.skipped == [["lm_head", "no projection"]]
        assert work.items_of(item.migration_id) == [item]
        assert work.results_of("tickets", target.id) == [item]


def test_verdicts_are_history_and_the_latest_counts(catalog: Catalog):
    with catalog.begin() as work:
        item = a_result(work, "no_effect")
        for _ in range(2):
            work.settle_item(
                item.id, status="done", verdict="migrated", reason="again", evidence={"rows": 40}
            )
        latest = work.verdict_of(item.id)
        assert latest is not None
        assert (latest.verdict, latest.evidence) == ("migrated", {"rows": 40})
        assert work.item(item.id).verdict == "migrated"
        assert work.verdict_of(item.id + 1) is None


def test_which_adapters_are_not_migrated_yet(catalog: Catalog):
    with catalog.begin() as work:
        a_result(work, "migrated", name="moved")
        a_result(work, "no_effect", "other", name="stuck")
        source, target = work.base_named("old"), work.base_named("new")
        assert source is not None
        assert target is not None
        assert [one.name for one in work.unmigrated_adapters(source.id, target.id)] == ["stuck"]


def test_measures_and_evaluations_are_kept_once(catalog: Catalog):
    measure = {"layer": 1, "role": "q", "source_layer": 2, "source_energy": 0.9, "target_energy": None}
    measure |= {"retained_energy": 0.5, "source_norm": 1.0, "norm": 0.5, "relative_norm": None}
    with catalog.begin() as work:
        item = a_result(work)
        for _ in range(2):
            work.add_measures(item.id, [measure])
            work.add_evaluation("base", "", "rows", "float32", "cpu", "loss", [1.0, 3.0])
            work.add_evaluation("base", "", "rows", "float32", "cpu", "exact match", [0.0, 1.0])
        (found,) = work.measures_of(item.id)
        assert (found.layer, found.role, found.retained_energy) == (1, "q", 0.5)
        evaluation = work.evaluation("base", "", "rows", "float32", "cpu", "loss")
        assert evaluation is not None
        assert (evaluation.mean, evaluation.by_row, evaluation.rows) == (2.0, [1.0, 3.0], 2)
        another = work.evaluation("base", "", "rows", "float32", "cpu", "exact match")
        assert another is not None
        assert another.by_row == [0.0, 1.0]
        assert work.evaluation("base", "adapter", "rows", "float32", "cpu", "loss") is None
        assert work.evaluation("base", "", "rows", "float32", "cuda", "loss") is None


def test_factor_sets_are_kept_once(catalog: Catalog):
    values = {"base_digest": "b", "spec": "r8", "group_index": 0, "first_layer": 0, "last_layer": 3}
    values |= {"store_key": "k", "sha256": "s", "size_bytes": 2**40, "rank": 8, "seconds": 1.5}
    with catalog.begin() as work:
        work.add_factor_set(**(values | {"seconds": None}))
        work.add_factor_set(**values)
        work.add_factor_set(**(values | {"seconds": 9.0}))
        (found,) = work.factor_sets_of("b")
        assert (found.size_bytes, found.seconds) == (2**40, 1.5)


def test_an_error_undoes_the_whole_unit_of_work(catalog: Catalog):
    with pytest.raises(RuntimeError), catalog.begin() as work:
        a_base(work)
        raise RuntimeError
    with catalog.begin() as work:
        assert work.bases() == []


def test_moments_come_back_with_their_zone(catalog: Catalog):
    before = datetime.now(UTC)
    with catalog.begin() as work:
        migration = a_migration(work, a_base(work))
        work.finish_migration(migration, "finished")
    with catalog.begin() as work:
        record = work.migration(migration)
    assert record.started_at.tzinfo is not None
    assert before - timedelta(seconds=1) <= record.started_at <= record.finished_at <= datetime.now(UTC)


def test_rows_that_are_not_there(catalog: Catalog):
    with catalog.begin() as work:
        for question in (work.base, work.migration, work.item):
            with pytest.raises(RecordNotFound, match="no id 7"):
                question(7)


def register_fleet(url: str, writer: int) -> None:
    """Everyone's twenty adapters in an order of one's own, and one that nobody else has."""
    catalog = Catalog.open(url)
    names = [f"adapter-{number}" for number in range(20)]
    random.Random(writer).shuffle(names)
    with catalog.begin() as work:
        base = a_base(work)
        for name in [*names, f"own-{writer}"]:
            an_adapter(work, base, name)
    catalog.close()


def test_sixteen_writers_register_the_same_fleet(url: str):
    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(register_fleet, url, writer) for writer in range(16)]:
            future.result(timeout=120)
    catalog = Catalog.open(url)
    with catalog.begin() as work:
        (base,) = work.bases()
        expected = [f"adapter-{number}" for number in range(20)] + [f"own-{writer}" for writer in range(16)]
        assert [one.name for one in work.adapters_on(base.id)] == sorted(expected)
        assert len(work.adapters()) == 36
    catalog.close()


def test_opposite_orders_do_not_deadlock(catalog: Catalog):
    both_began = threading.Barrier(2)

    def register(names: list[str]) -> None:
        with catalog.begin() as work:
            base = a_base(work)
            for name in names:
                an_adapter(work, base, name)
                with contextlib.suppress(threading.BrokenBarrierError):
                    both_began.wait(timeout=0.3)  # the second writer must not get this far

    with catalog.begin() as work:
        a_base(work)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(register, names) for names in (["x", "y"], ["y", "x"])]:
            future.result(timeout=60)
    assert both_began.broken


def test_readers_do_not_wait_for_a_writer(catalog: Catalog, url: str, monkeypatch):
    monkeypatch.setattr("cross_lora_core.catalog.opening._BUSY_MILLISECONDS", 50)
    other = Catalog.open(url)
    with catalog.begin() as writer:
        a_base(writer)
        with other.begin() as reader:
            assert reader.bases() == []
    with other.begin() as reader:
        assert [one.name for one in reader.bases()] == ["old"]
    other.close()


def test_a_writer_that_began_by_reading_sees_what_came_since(catalog: Catalog, url: str):
    other = Catalog.open(url)
    with catalog.begin() as work:
        assert work.bases() == []
        with other.begin() as second:
            theirs = a_base(second)
        assert a_base(work) == theirs
        a_base(work, "mine")
    with other.begin() as work:
        assert [one.name for one in work.bases()] == ["mine", "old"]
    other.close()


def test_a_verdict_that_comes_back_is_the_latest_again(catalog: Catalog):
    with catalog.begin() as work:
        item = a_result(work, "migrated")
    with catalog.begin() as work:
        work.settle_item(item.id, status="failed", verdict="failed", reason="down", evidence={})
    with catalog.begin() as work:
        again = a_result(work, "migrated")
        latest = work.verdict_of(item.id)
        assert latest is not None
        assert (again.verdict, latest.verdict) == ("migrated", "migrated")
    with catalog.begin() as work:
        assert a_result(work, "migrated") == again
        assert work.verdict_of(item.id) == latest


def test_a_migration_that_runs_again_has_not_finished(catalog: Catalog):
    with catalog.begin() as work:
        migration = a_migration(work, a_base(work))
        work.finish_migration(migration, "finished")
    with catalog.begin() as work:
        a_migration(work, a_base(work))
        found = work.migration_by_request("request")
        assert found == work.migration(migration)
        assert (found.status, found.finished_at) == ("running", None)
        assert work.migration_by_request("unknown") is None


def test_a_base_cannot_succeed_itself(catalog: Catalog):
    with pytest.raises(RecordConflict, match="another base"), catalog.begin() as work:
        a_base(work)
        work.deprecate_base("old", on=None, successor="old")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_undefined_numbers_are_no_evidence(catalog: Catalog, number: float):
    measure = {"layer": 1, "role": "q", "source_layer": 2, "source_energy": None, "target_energy": None}
    measure |= {"retained_energy": None, "source_norm": 1.0, "norm": number, "relative_norm": None}
    with catalog.begin() as work:
        item = a_result(work)
        with pytest.raises(FinalError, match="finite numbers"):
            work.add_evaluation("base", "", "rows", "float32", "cpu", "loss", [1.0, number])
        with pytest.raises(FinalError, match="norm"):
            work.add_measures(item.id, [measure])
        evidence = {"ratio": number, "parts": [(1.0, number)], "rows": 3}
        work.settle_item(item.id, status="done", verdict="harmful", reason="", evidence=evidence)
    with catalog.begin() as work:
        latest = work.verdict_of(item.id)
        assert latest is not None
        assert latest.evidence == {"ratio": None, "parts": [[1.0, None]], "rows": 3}


def test_what_one_database_would_cut_off_or_let_through_is_refused_by_both(catalog: Catalog):
    with pytest.raises(ConfigurationError, match="at most 300 characters"), catalog.begin() as work:
        an_adapter(work, a_base(work), "n" * 301)
    with pytest.raises(FinalError, match="ck_migrations_status"), catalog.begin() as work:
        work.finish_migration(a_migration(work, a_base(work)), "bogus")
    with pytest.raises(FinalError, match=r"(?i)foreign key"), catalog.begin() as work:
        an_adapter(work, a_base(work), base_id=99)
    with catalog.begin() as work:
        assert work.bases() == []
