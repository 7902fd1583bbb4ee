"""An alias is a row in the catalog and a pointer in the store, which move together."""

from __future__ import annotations

import json

import pytest

from cross_lora_core.errors import ObjectCorrupted, RecordConflict, StoreUnavailable
from cross_lora_core.migration import alias_key, read_alias
from tasks.move_alias import promote_adapter, rollback_adapter, settle_aliases
from tasks.runtime import open_catalog, open_stored
from tests.support.rows import a_result

pytestmark = pytest.mark.usefixtures("home")
KEY = "adapters/new/tickets/latest.json"


@pytest.fixture
def results() -> list[int]:
    """Migrations with a result each, the latest last."""
    with open_catalog().begin() as work:
        return [a_result(work, request=f"request {number}").migration_id for number in range(2)]


def promote(migration: int, reason: str = "cutover"):
    return promote_adapter("tickets", "new", migration, "ada", reason, None)


def pointed():
    data = open_stored().read_pointer(KEY)
    return None if data is None else read_alias(data, KEY)


def current():
    with open_catalog().begin() as work:
        (only,) = work.current_promotions()
        return only


def test_the_pointer_says_what_the_catalog_says(results):
    moved = promote(results[0])
    alias = pointed()
    assert (moved["pointer"], moved["output"]) == (KEY, alias.output)
    assert (alias.adapter, alias.target_base, alias.actor, alias.reason) == (
        "tickets",
        "new",
        "ada",
        "cutover",
    )
    assert (alias.promotion, alias.action, alias.verdict) == (current().id, "promote", "migrated")
    assert alias.lora_name == "/".join(alias.output.split("/")[-2:])
    assert json.loads(open_stored().read_pointer(KEY))["lora_name"] == alias.lora_name


def test_rollback_points_back_and_keeps_the_history(results):
    first, second = (promote(one) for one in results)
    back = rollback_adapter("tickets", "new", "bob", "worse")
    assert first["output"] == back["output"] != second["output"]
    assert (pointed().action, pointed().actor, pointed().output) == ("rollback", "bob", first["output"])
    with open_catalog().begin() as work:
        history = work.history_of(current().target_base_id, "tickets")
    assert [(one.action, one.actor, one.reason) for one in history] == [
        ("rollback", "bob", "worse"),
        ("promote", "ada", "cutover"),
        ("promote", "ada", "cutover"),
    ]


def test_a_store_that_does_not_answer_moves_nothing(results, monkeypatch):
    promote(results[0])
    before = pointed()

    def no_answer(*_args):
        raise StoreUnavailable("an answer", "none", "the store", "Try again.")

    with monkeypatch.context() as patched:
        patched.setattr(type(open_stored()), "put_pointer", no_answer)
        with pytest.raises(StoreUnavailable):
            promote(results[1])
    assert current().id == before.promotion
    assert pointed() == before


def test_a_refused_promotion_moves_nothing(results):
    promote(results[1])
    with open_catalog().begin() as work:
        worse = a_result(work, "harmful", request="another").migration_id
    with pytest.raises(RecordConflict):
        promote(worse)
    assert pointed().promotion == current().id


@pytest.mark.parametrize("damage", [b"{}", b"\xff", b'{"adapter": 1}', None])
def test_a_pointer_that_was_left_behind_is_settled(results, damage):
    promote(results[0])
    expected = pointed()
    if damage is None:
        open_stored().delete(KEY)
    else:
        open_stored().put_pointer(KEY, damage)
        with pytest.raises(ObjectCorrupted, match="Promote the adapter again"):
            pointed()
    assert settle_aliases() == [KEY]
    assert pointed() == expected
    assert settle_aliases() == []


def test_promoting_what_is_current_settles_its_pointer_too(results):
    promote(results[0])
    expected = pointed()
    open_stored().delete(KEY)
    promote(results[0], reason="again")
    assert pointed() == expected


def test_a_hub_id_keeps_its_slash_so_that_a_resolver_finds_it():
    assert (
        alias_key("Qwen/Qwen2.5-1.5B", "org/tickets") == "adapters/Qwen/Qwen2.5-1.5B/org--tickets/latest.json"
    )
    assert alias_key("../../etc", "..") == "adapters/unnamed/unnamed/etc/unnamed/latest.json"
