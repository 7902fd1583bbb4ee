"""Method `probe` as a flow: maps once per pair of bases and layer group, shared by the fleet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cross_lora_core.migration import MigrationRequest
from cross_lora_core.settings import load_settings
from flows.migrate_fleet import migrate_fleet

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home", "few_probes")]


def probe(fleet, *names: str, **changes) -> MigrationRequest:
    values = {
        "source": str(fleet.source),
        "targets": [str(fleet.target)],
        "adapters": [fleet.adapter(name) for name in names],
        "method": "probe",
    }
    return MigrationRequest.model_validate(values | changes)


def stored_maps() -> list[Path]:
    root = Path(load_settings().store_url.removeprefix("file://"))
    return sorted((root / "maps").rglob("*.safetensors"))


def test_a_fleet_shares_the_maps_of_its_bases(fleet):
    outcome = migrate_fleet(probe(fleet, "measured", "empty"))
    items = {one.adapter: one for one in outcome.items}
    assert items["measured"].verdict in ("no_effect", "migrated", "harmful")
    assert items["measured"].modules_landed == items["measured"].modules_expected == 16
    assert items["empty"].verdict == "no_effect"
    told = json.loads((Path(items["measured"].output) / "migration.json").read_text())
    assert told["method"] == "probe"
    assert all(one["norm"] > 0 for one in told["modules"])
    assert len(stored_maps()) > 1


def test_another_adapter_and_another_form_fit_no_map_again(fleet, monkeypatch):
    migrate_fleet(probe(fleet, "plain"))
    made = stored_maps()

    def never(*_arguments, **_named):
        raise AssertionError("fitted again")

    import tasks.map_responses

    monkeypatch.setattr(tasks.map_responses, "pair_moments", never)
    (item,) = migrate_fleet(probe(fleet, "wide", output_dtype="float32")).items
    assert item.status == "done"
    assert stored_maps() == made


def test_what_broke_before_the_maps_were_stored_resumes(fleet, monkeypatch):
    import tasks.map_responses

    fit = tasks.map_responses.fit_maps
    monkeypatch.setattr(tasks.map_responses, "fit_maps", lambda *_: 1 / 0)
    (broken,) = migrate_fleet(probe(fleet, "plain")).items
    assert broken.status == "failed" and "ZeroDivisionError" in broken.reason
    monkeypatch.setattr(tasks.map_responses, "fit_maps", fit)
    (item,) = migrate_fleet(probe(fleet, "plain")).items
    assert item.status == "done"


def test_a_base_without_a_tokenizer_is_refused_by_name(fleet, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(fleet.target, bare)
    (bare / "tokenizer.json").unlink()
    (item,) = migrate_fleet(probe(fleet, "plain", targets=[str(bare)])).items
    assert item.verdict == "refused"
    assert "tokenizer.json" in item.reason
