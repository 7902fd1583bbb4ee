"""Method `effect` as a flow: probes once per adapter, then one chain of layer groups per adapter and target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cross_lora_core.catalog import Catalog
from cross_lora_core.migration import MigrationRequest
from cross_lora_core.settings import load_settings
from flows.migrate_fleet import migrate_fleet

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home", "few_probes")]


def effect(fleet, *names: str, **changes) -> MigrationRequest:
    values = {
        "source": str(fleet.source),
        "targets": [str(fleet.target)],
        "adapters": [fleet.adapter(name) for name in names],
        "method": "effect",
    }
    return MigrationRequest.model_validate(values | changes)


def stored(kind: str) -> list[Path]:
    root = Path(load_settings().store_url.removeprefix("file://"))
    return sorted(one for one in (root / kind).rglob("*") if one.suffix in (".json", ".safetensors"))


def test_an_adapter_is_fitted_group_by_group(fleet):
    outcome = migrate_fleet(effect(fleet, "measured", "empty"))
    items = {one.adapter: one for one in outcome.items}
    measured = items["measured"]
    assert measured.verdict in ("no_effect", "migrated", "harmful")
    assert measured.modules_landed == measured.modules_expected == 4  # a down projection in each layer
    assert items["empty"].verdict == "no_effect"
    told = json.loads((Path(measured.output) / "migration.json").read_text())
    assert told["method"] == "effect"
    assert told["skipped"] == []
    assert [(one["layer"], one["role"]) for one in told["modules"]] == [(layer, "down") for layer in range(4)]
    assert all(0 <= one["explained"] <= 1 and one["source_norm"] is None for one in told["modules"])
    with Catalog.open(load_settings().catalog_url).begin() as work:
        (item,) = [one for one in work.items_of(outcome.migration) if one.adapter_name == "measured"]
        measures = work.measures_of(item.id)
    assert all(one.source_norm is None for one in measures)
    assert any(one.norm > 0 for one in measures)  # a layer where no strength helps is left alone
    assert "share of the wanted change explained" in Path(outcome.report).read_text()


def test_a_second_run_computes_nothing(fleet, monkeypatch):
    first = migrate_fleet(effect(fleet, "plain"))
    assert len(stored("projections")) > 1
    assert len(stored("probes")) == 2  # the adapter's, and those of the base for the maps
    assert len(stored("moments")) == len(stored("projections"))

    def never(*_arguments, **_named):
        raise AssertionError("computed again")

    import tasks.fit_effect
    import tasks.sample_probes

    monkeypatch.setattr(tasks.fit_effect, "fit_effect", never)
    monkeypatch.setattr(tasks.sample_probes, "sample_strings", never)
    again = migrate_fleet(effect(fleet, "plain", output_dtype="float32"))  # same fit, written otherwise
    assert again.items[0].output != first.items[0].output


def test_a_base_without_a_tokenizer_is_refused_by_name(fleet, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(fleet.target, bare)
    (bare / "tokenizer.json").unlink()
    (item,) = migrate_fleet(effect(fleet, "plain", targets=[str(bare)])).items
    assert item.verdict == "refused"
    assert "tokenizer.json" in item.reason


def test_auto_tries_it_beside_the_transport(fleet):
    (item,) = migrate_fleet(effect(fleet, "measured", method="auto", rank=12)).items
    assert [one.method for one in item.candidates] == ["effect", "cross-lora"]
