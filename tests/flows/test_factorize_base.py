"""Factorizing a base ahead of the fleets that will need it."""

from __future__ import annotations

import pytest

from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import BaseModelError
from cross_lora_core.migration import MigrationRequest
from cross_lora_core.settings import load_settings
from flows.factorize_base import factorize_base
from flows.migrate_fleet import migrate_fleet

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]


@pytest.fixture(autouse=True)
def small_groups(home, monkeypatch):
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))


def test_a_migration_finds_what_was_factorized_before(fleet, monkeypatch):
    rows = factorize_base(str(fleet.source), rank=12) + factorize_base(str(fleet.target), rank=12)
    assert len(rows) > 2
    assert len({row["key"] for row in rows}) == len(rows)

    def never(*_args):
        raise AssertionError("factorized again")

    monkeypatch.setattr("tasks.factorize_base.factorize_layers", never)
    request = MigrationRequest(
        source="old-llama", targets=["new-gemma"], adapters=[fleet.adapter("plain")], rank=12
    )
    (item,) = migrate_fleet(request).items
    assert item.verdict == "unverified"


def test_a_second_time_nothing_is_computed(fleet, monkeypatch):
    first = factorize_base(str(fleet.source), rank=12)
    with Catalog.open(load_settings().catalog_url).begin() as work:
        assert [one.name for one in work.bases()] == ["old-llama"]
    monkeypatch.setattr("tasks.factorize_base.factorize_layers", None)
    assert factorize_base("old-llama", rank=12) == first


def test_a_base_that_is_none_says_so():
    with pytest.raises(BaseModelError):
        factorize_base("/absent/base")
