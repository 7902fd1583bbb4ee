"""The whole flow on a fleet of pico adapters: outcomes, repeats, resumes, failures that stay alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from cross_lora_core.adapters import read_adapter, updates_by_role
from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import ObjectNotFound, StoreUnavailable
from cross_lora_core.migration import MigrationOutcome, MigrationRequest
from cross_lora_core.models import open_base
from cross_lora_core.settings import load_settings
from flows.migrate_fleet import migrate_fleet
from tasks.report_migration import gather_report
from tests.support.oracle import dense
from tests.support.tolerances import assert_close

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]


@pytest.fixture(autouse=True)
def small_groups(home, monkeypatch):
    """Several layer groups even on pico bases."""
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))


def request_for(fleet, **changes) -> MigrationRequest:
    values = {
        "source": str(fleet.source),
        "targets": [str(fleet.target)],
        "adapters": [str(fleet.adapters)],
        "rank": 12,
    }
    return MigrationRequest.model_validate(values | changes)


def by_adapter(outcome: MigrationOutcome) -> dict[str, str]:
    return {one.adapter: one.verdict for one in outcome.items}


def stored_files(home: Path) -> dict[str, bytes]:
    root = home / "store"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".checksums" not in path.parts
    }


def catalog() -> Catalog:
    return Catalog.open(load_settings().catalog_url)


def test_a_fleet_gets_one_honest_verdict_each(fleet, home):
    outcome = migrate_fleet(request_for(fleet))
    assert not outcome.complete
    verdicts = by_adapter(outcome)
    assert verdicts["broken"] == "refused"
    assert verdicts["empty"] == "no_effect"
    assert verdicts["plain"] == verdicts["wide"] == "unverified"
    assert verdicts["measured"] in ("no_effect", "harmful")  # a random update of a random base can do no good
    for one in outcome.items:
        if one.status == "done":
            assert one.modules_landed == one.modules_expected > 0
            loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(fleet.target), one.output)
            landed = [module for module in loaded.modules() if hasattr(module, "get_delta_weight")]
            assert len(landed) == one.modules_landed
            config = json.loads((Path(one.output) / "adapter_config.json").read_text())
            assert config["base_model_name_or_path"] == "new-gemma"
            assert config["r"] == config["lora_alpha"] == 8
        else:
            assert one.output is None
    refused = next(one for one in outcome.items if one.adapter == "broken")
    assert "NaN" in refused.reason
    assert Path(outcome.report).is_file()


def test_a_second_run_finds_everything_and_changes_nothing(fleet, home, monkeypatch):
    request = request_for(fleet)
    first = migrate_fleet(request)
    before = stored_files(home)

    def never(*_args, **_kwargs):
        raise AssertionError("computed again")

    for name in (
        "factorize_base.factorize_layers",
        "align_bases.align_landings",
        "project_adapter.project_landings",
    ):
        monkeypatch.setattr(f"tasks.{name}", never)
    monkeypatch.setattr("tasks.evaluate_adapter.row_losses", never)
    second = migrate_fleet(request)
    assert (second.items, second.migration) == (first.items, first.migration)
    assert stored_files(home) == before
    with catalog().begin() as work:
        assert len(work.bases()) == 2
        assert len(work.adapters()) == 4
        assert len(work.migrations()) == 1
        assert len(work.items_of(first.migration)) == 5
        assert not [name for name, count in Counter(one.name for one in work.adapters()).items() if count > 1]


def test_a_lost_output_is_made_again_the_same(fleet, home):
    request = request_for(fleet, adapters=[fleet.adapter("plain")])
    (first,) = migrate_fleet(request).items
    before = stored_files(home)
    for path in Path(first.output).iterdir():
        path.unlink()
    Path(first.output).rmdir()
    (again,) = migrate_fleet(request).items
    assert again == first
    assert stored_files(home) == before


def test_a_failed_factorization_is_the_reason_of_every_item_that_needs_it(fleet, monkeypatch):
    def breaking(*_args, **_kwargs):
        raise ObjectNotFound("a stored object", "none", "the store", "Look after the disk.")

    monkeypatch.setattr("tasks.factorize_base.factorize_layers", breaking)
    outcome = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("plain"), fleet.adapter("wide")]))
    assert [one.status for one in outcome.items] == ["failed", "failed"]
    assert all("Look after the disk." in one.reason for one in outcome.items)


def test_what_was_published_and_not_validated_is_not_assembled_again(fleet, monkeypatch):
    def breaking(*_args, **_kwargs):
        raise ObjectNotFound("a stored object", "none", "the store", "Look after the disk.")

    def never(*_args, **_kwargs):
        raise AssertionError("assembled again")

    request = request_for(fleet, adapters=[fleet.adapter("plain")])
    with monkeypatch.context() as broken:
        broken.setattr("tasks.validate_adapter.decide", breaking)
        assert migrate_fleet(request).items[0].status == "failed"
    monkeypatch.setattr("tasks.publish_adapter.write_adapter", never)
    (again,) = migrate_fleet(request).items
    assert (again.status, again.verdict) == ("done", "unverified")


def test_an_item_whose_measurement_could_not_be_trusted_is_measured_again(fleet, monkeypatch):
    import tasks.validate_adapter as module

    real = module.measured_losses

    def trembling(base, adapter, *rest):
        losses = real(base, adapter, *rest)
        return [one + 1e-7 for one in losses] if adapter and adapter.name == "zero" else losses

    request = request_for(fleet, adapters=[fleet.adapter("measured")])
    with monkeypatch.context() as patched:
        patched.setattr(module, "measured_losses", trembling)
        (first,) = migrate_fleet(request).items
    assert (first.status, first.verdict) == ("failed", "failed")
    assert "not to be trusted" in first.reason
    (again,) = migrate_fleet(request).items
    assert again.verdict in ("no_effect", "harmful")


def test_one_that_breaks_fails_alone_and_the_next_run_mends_it(fleet, monkeypatch):
    import tasks.project_adapter as module

    real = module.project_landings

    def break_one(adapters, *rest):
        if any(update.rank == 2 for adapter in adapters for update in adapter.updates.values()):
            raise ObjectNotFound("a stored object", "none", "the store", "Look after the disk.")
        return real(adapters, *rest)

    request = request_for(fleet, adapters=[fleet.adapter("plain"), fleet.adapter("wide")])
    with monkeypatch.context() as patched:
        patched.setattr(module, "project_landings", break_one)
        broken = migrate_fleet(request)
    assert by_adapter(broken) == {"plain": "unverified", "wide": "failed"}
    failed = next(one for one in broken.items if one.adapter == "wide")
    assert failed.status == "failed"
    assert "ObjectNotFound" in failed.reason
    assert "Look after the disk" in failed.reason
    assert not broken.complete
    mended = migrate_fleet(request)
    assert by_adapter(mended) == {"plain": "unverified", "wide": "unverified"}
    assert mended.migration == broken.migration


def test_what_may_succeed_later_is_tried_again(fleet, monkeypatch):
    import tasks.project_adapter as module

    real, calls = module.project_landings, []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("an answer", "503", "the store", "Wait.")
        return real(*arguments)

    monkeypatch.setattr(module, "project_landings", fail_once)
    monkeypatch.setattr(module.project_group, "retry_delay_seconds", 0)
    (one,) = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("plain")])).items
    assert one.verdict == "unverified"


def test_an_interrupted_run_resumes(fleet, home, monkeypatch):
    import tasks.project_adapter as module

    real, done = module.project_landings, []

    def interrupt_second(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    request = request_for(fleet, adapters=[fleet.adapter("plain"), fleet.adapter("wide")])
    undisturbed = migrate_fleet(request)
    reference = {key: data for key, data in stored_files(home).items() if key.startswith("adapters/")}
    monkeypatch.setenv("CROSS_LORA_HOME", str(home.with_name("other")))
    monkeypatch.setenv("CROSS_LORA_WORKERS", "1")
    with monkeypatch.context() as patched:
        patched.setattr(module, "project_landings", interrupt_second)
        try:
            stopped = migrate_fleet(request)
        except BaseException:
            stopped = None
    assert stopped is None or not stopped.complete
    assert len(done) == 1
    resumed = migrate_fleet(request)
    assert by_adapter(resumed) == by_adapter(undisturbed)
    found = {
        key: data
        for key, data in stored_files(home.with_name("other")).items()
        if key.startswith("adapters/")
    }
    assert found == reference


def test_the_identity_hop_is_exact(fleet):
    request = request_for(
        fleet, targets=[str(fleet.source)], adapters=[fleet.adapter("plain")], method="copy"
    )
    (one,) = migrate_fleet(request).items
    assert one.verdict == "copied"
    base = open_base(fleet.source)
    before = updates_by_role(read_adapter(fleet.adapter("plain")), base).updates
    after = updates_by_role(read_adapter(one.output), base).updates
    for key, update in before.items():
        assert_close(dense(after[key]), dense(update), torch.float16)


@pytest.mark.parametrize("method", ["copy", "interpolate", "subspace", "subspace+null", "cross-lora"])
def test_every_method_lands_between_equal_shapes(fleet, method):
    request = request_for(
        fleet, targets=[str(fleet.sibling)], adapters=[fleet.adapter("plain")], method=method
    )
    (one,) = migrate_fleet(request).items
    assert (one.status, one.verdict, one.modules_landed) == ("done", "unverified", 12)


def test_the_published_pairing_is_another_result(fleet):
    outputs = []
    for anchor in ("tokens", "index"):
        (one,) = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("plain")], anchor=anchor)).items
        outputs.append((Path(one.output) / "adapter_model.safetensors").read_bytes())
    assert outputs[0] != outputs[1]


@pytest.mark.parametrize("method", ["copy", "subspace", "subspace+null"])
def test_a_method_that_needs_equal_widths_is_refused_with_what_to_do(fleet, method):
    (one,) = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("plain")], method=method)).items
    assert (one.status, one.verdict) == ("refused", "refused")
    assert "use auto, cross-lora or interpolate" in one.reason


def test_two_targets_share_the_source(fleet, home):
    request = request_for(
        fleet, targets=[str(fleet.target), str(fleet.sibling)], adapters=[fleet.adapter("plain")]
    )
    outcome = migrate_fleet(request)
    assert [one.target for one in outcome.items] == ["new-gemma", "sibling-llama"]
    digests = {key.split("/")[1] for key in stored_files(home) if key.startswith("factors/")}
    assert len(digests) == 3


def test_a_second_adapter_uses_the_stored_factors(fleet, home, monkeypatch):
    migrate_fleet(request_for(fleet, adapters=[fleet.adapter("plain")]))

    def never(*_args, **_kwargs):
        raise AssertionError("factorized again")

    monkeypatch.setattr("tasks.factorize_base.factorize_layers", never)
    (one,) = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("wide")])).items
    assert one.verdict == "unverified"


def test_threads_do_not_change_the_result(fleet, home, monkeypatch):
    request = request_for(fleet, adapters=[fleet.adapter("plain"), fleet.adapter("wide")])
    digests = []
    for workers in ("1", "4"):
        monkeypatch.setenv("CROSS_LORA_WORKERS", workers)
        monkeypatch.setenv("CROSS_LORA_HOME", str(home.with_name(f"workers-{workers}")))
        outcome = migrate_fleet(request)
        digests.append(
            [(Path(one.output) / "adapter_model.safetensors").read_bytes() for one in outcome.items]
        )
    assert digests[0] == digests[1]


def test_measures_and_report_hold_the_evidence(fleet):
    outcome = migrate_fleet(request_for(fleet, adapters=[fleet.adapter("measured")]))
    with catalog().begin() as work:
        (item,) = work.items_of(outcome.migration)
        measures = work.measures_of(item.id)
        verdict = work.verdict_of(item.id)
    assert len(measures) == 16
    assert all(0 <= one.retained_energy <= 1 and one.norm > 0 and one.relative_norm > 0 for one in measures)
    assert verdict is not None
    assert set(verdict.evidence["means"]) >= {"target base", "zero", "random", "migrated", "source adapter"}
    assert verdict.evidence["means"]["zero"] == verdict.evidence["means"]["target base"]
    page = Path(outcome.report).read_text()
    assert page.count("<svg") == 3
    for word in ("measured", "new-gemma", verdict.verdict, "nats per character", "ΔW kept"):
        assert word in page
    assert "src=" not in page
    assert "<script" not in page


def test_only_so_many_items_are_on_their_way_at_a_time(fleet, home, monkeypatch):
    import flows.migrate_fleet as module

    under_way, most = [], []

    def submitting(*arguments):
        under_way.append(1)
        most.append(len(under_way))
        return submit(*arguments)

    def settling(run):
        under_way.pop()
        return settle(run)

    submit, settle = module.submit_item, module.settle_item
    request = request_for(fleet)
    together = migrate_fleet(request)
    monkeypatch.setenv("CROSS_LORA_HOME", str(home.with_name("narrow")))
    monkeypatch.setattr(module, "submit_item", submitting)
    monkeypatch.setattr(module, "settle_item", settling)
    monkeypatch.setattr(module, "_TASK_RUNS_IN_FLIGHT", 1)
    one_by_one = migrate_fleet(request)
    assert max(most) == 1
    assert len(most) == 4
    assert by_adapter(one_by_one) == by_adapter(together)


def test_a_run_is_found_by_its_tags_and_leaves_artifacts(fleet):
    from prefect.client.orchestration import get_client

    migration = migrate_fleet(
        request_for(fleet, adapters=[fleet.adapter("measured"), fleet.adapter("plain")])
    )
    with catalog().begin() as work, get_client(sync_client=True) as client:
        run = client.read_flow_run(work.migration(migration.migration).flow_run)
        assert {"base:old-llama", "target:new-gemma", "method:cross-lora"} <= set(run.tags)
        assert run.name == "old-llama → new-gemma (cross-lora)"
        mine = {"flow_run_id": {"any_": [str(run.id)]}}
        found = client.request("POST", "/artifacts/filter", json={"artifacts": mine}).json()
        tasks = client.request(
            "POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [str(run.id)]}}}
        ).json()
    artifacts = {one["key"]: one for one in found}
    assert set(artifacts) == {
        f"{kind}-old-llama" for kind in ("progress", "migration", "verdicts", "improvement", "report")
    }
    assert artifacts["progress-old-llama"]["data"] == 100.0
    assert artifacts["improvement-old-llama"]["data"].startswith("data:image/png;base64,")
    assert [row["adapter"] for row in json.loads(artifacts["verdicts-old-llama"]["data"])] == [
        "measured",
        "plain",
    ]
    assert {one["name"] for one in tasks} >= {"publish plain for new-gemma", "validate plain on new-gemma"}


def test_the_page_of_many_adapters_is_not_drawn_and_says_where_the_measures_are(fleet, monkeypatch):
    request = request_for(fleet, adapters=[fleet.adapter("measured")])
    monkeypatch.setattr("tasks.report_migration._DETAILED_ITEMS", 0)
    outcome = migrate_fleet(request)
    page = Path(outcome.report).read_text()
    assert "<svg" not in page
    assert f"cross-lora report {outcome.migration} --json" in page
    assert len(gather_report(outcome.migration, whole=True).items[0].modules) == 16
