from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import RecordConflict, RecordNotFound
from tests.support.rows import a_result


@pytest.mark.parametrize("verdict", ["migrated", "copied"])
def test_good_verdicts_go_without_being_named(catalog: Catalog, verdict: str):
    with catalog.begin() as work:
        item = a_result(work, verdict)
        moved = work.promote(item.id, actor="ada", reason="cutover")
        assert (moved.item_id, moved.previous_item_id, moved.actor, moved.reason) == (
            item.id,
            None,
            "ada",
            "cutover",
        )
        assert work.promote(item.id, actor="bob", reason="again") == moved
        assert work.current_promotion(item.target_base_id, "tickets") == moved


@pytest.mark.parametrize("verdict", ["no_effect", "harmful", "unverified"])
def test_others_have_to_be_named(catalog: Catalog, verdict: str):
    with catalog.begin() as work:
        item = a_result(work, verdict)
        with pytest.raises(RecordConflict, match=f"--accept {verdict}"):
            work.promote(item.id, actor="ada", reason="")
        with pytest.raises(RecordConflict):
            work.promote(item.id, actor="ada", reason="", accept="copied")
        assert work.promote(item.id, actor="ada", reason="", accept=verdict).item_id == item.id


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_what_has_no_output_cannot_be_promoted_at_all(catalog: Catalog, status: str):
    with catalog.begin() as work:
        item = a_result(work)
        work.settle_item(item.id, status=status, verdict=status, reason="broken", evidence={})
        with pytest.raises(RecordConflict, match="There is no output to promote"):
            work.promote(item.id, actor="ada", reason="", accept=status)


def test_rollback_walks_back_one_by_one(catalog: Catalog):
    with catalog.begin() as work:
        items = [a_result(work, request=f"request {number}") for number in range(3)]
        target = items[0].target_base_id
        for item in items:
            work.promote(item.id, actor="ada", reason="newer")
        for expected in (1, 0):
            moved = work.rollback(target, "tickets", actor="bob", reason="worse")
            assert (moved.item_id, moved.action) == (items[expected].id, "rollback")
        with pytest.raises(RecordNotFound, match="promoted once only"):
            work.rollback(target, "tickets", actor="bob", reason="")
        history = work.history_of(target, "tickets")
        assert [one.action for one in history] == ["rollback"] * 2 + ["promote"] * 3


def test_rollback_of_what_was_never_promoted(catalog: Catalog):
    with catalog.begin() as work:
        item = a_result(work)
        with pytest.raises(RecordNotFound, match="never promoted"):
            work.rollback(item.target_base_id, "tickets", actor="bob", reason="")


def test_rollback_retraces_what_was_promoted_twice_and_then_ends(catalog: Catalog):
    with catalog.begin() as work:
        a, b, c = (a_result(work, request=name) for name in "abc")
        for item in (a, b, a, c):
            work.promote(item.id, actor="ada", reason="")
        target = a.target_base_id
        moves = [work.rollback(target, "tickets", actor="bob", reason="") for _ in range(3)]
        assert [one.item_id for one in moves] == [a.id, b.id, a.id]
        assert [one.previous_item_id for one in moves] == [b.id, a.id, None]
        with pytest.raises(RecordNotFound, match="promoted once only"):
            work.rollback(target, "tickets", actor="bob", reason="")
        assert work.promote(c.id, actor="ada", reason="").previous_item_id == a.id


def test_promotions_at_once_follow_one_another(catalog: Catalog):
    """Each replaces what was current when its turn came, so that no rollback skips one."""
    with catalog.begin() as work:
        items = [a_result(work, request=f"request {number}") for number in range(8)]

    def promote(item_id: int) -> None:
        with catalog.begin() as work:
            work.promote(item_id, actor="ada", reason="")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(promote, [item.id for item in items]))
    with catalog.begin() as work:
        history = work.history_of(items[0].target_base_id, "tickets")
    assert {one.item_id for one in history} == {item.id for item in items}
    assert [one.previous_item_id for one in history] == [*(one.item_id for one in history[1:]), None]
