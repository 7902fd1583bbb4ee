"""Method `refine` as a flow: what it begins with, its own strings, one training, a verdict; killed, it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cross_lora_core.errors import FinalError
from cross_lora_core.migration import Method, MigrationRequest
from cross_lora_core.settings import load_settings
from flows.cli import app
from flows.migrate_fleet import migrate_fleet

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home", "few_probes")]


def refine(fleet, *names: str, **changes) -> MigrationRequest:
    values = {
        "source": str(fleet.source),
        "targets": [str(fleet.target)],
        "adapters": [fleet.adapter(name) for name in names],
        "method": "refine",
        "refine_steps": 4,
    }
    return MigrationRequest.model_validate(values | changes)


def stored(kind: str) -> list[Path]:
    root = Path(load_settings().store_url.removeprefix("file://"))
    return sorted(one for one in (root / kind).rglob("*") if one.suffix in (".json", ".safetensors"))


def test_an_adapter_is_distilled_and_judged(fleet, home):
    arguments = ["migrate", "--source", str(fleet.source), "--target", str(fleet.target), "--json"]
    arguments += ["--adapter", fleet.adapter("measured"), "--method", "refine", "--refine-steps", "4"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (item,) = json.loads(done.stdout)["items"]
    assert item["verdict"] in ("no_effect", "migrated", "harmful")
    assert item["modules_landed"] == item["modules_expected"] == 4 * 7
    folder = Path(item["output"])
    told = json.loads((folder / "migration.json").read_text())
    assert told["method"] == "refine"
    assert "generated" in told["training"]["data"]
    assert (told["training"]["steps"], told["training"]["loss"]) == (4, "cross-entropy")
    assert "distilled" in (folder / "README.md").read_text()
    assert "without data or training" not in (folder / "README.md").read_text()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 16)
    assert len(stored("probes")) == 3
    assert not list((home / "work").iterdir())  # a finished training needs no checkpoint


def test_an_adapter_that_changes_nothing_stays_so(fleet):
    (item,) = migrate_fleet(refine(fleet, "empty")).items
    assert item.verdict == "no_effect"


def test_killed_it_goes_on_from_its_checkpoint(fleet, home, monkeypatch):
    import tasks.refine_adapter as module

    seen: list[int] = []

    def kill(done: int, _loss: float) -> None:
        seen.append(done)
        if done == 13:
            raise FinalError("a worker", "none", "the cluster", "Run it again.")

    request = refine(fleet, "plain", refine_steps=15)
    with monkeypatch.context() as killing:
        killing.setattr(module, "_tell", kill)
        (broken,) = migrate_fleet(request).items
    assert broken.status == "failed"
    assert len(list((home / "work").iterdir())) == 1
    monkeypatch.setattr(module, "_tell", lambda done, _loss: seen.append(done))
    (done,) = migrate_fleet(request).items
    assert done.status == "done"
    assert seen == [*range(1, 14), *range(11, 16)]  # it was kept at step 10
    assert not list((home / "work").iterdir())
    monkeypatch.setattr(module, "refine", lambda *_a, **_n: pytest.fail("trained again"))
    (same,) = migrate_fleet(refine(fleet, "plain", refine_steps=15, output_dtype="float32")).items
    assert same.output != done.output


def test_auto_tries_it_last_where_it_may_and_fits_only_once(fleet, monkeypatch):
    import tasks.fit_effect as module

    fits, real = [], module.fit_effect

    def counting(*arguments):
        fits.append(arguments[4])
        return real(*arguments)

    monkeypatch.setattr(module, "fit_effect", counting)
    monkeypatch.setattr("cross_lora_core.migration.ladder.DATA_FREE", (Method.EFFECT,))
    (item,) = migrate_fleet(refine(fleet, "measured", method="auto", refine=True)).items
    assert [one.method for one in item.candidates] == ["effect", "refine"]
    landings = [one for group in fits for one in group]
    assert len(landings) == len(set(landings)) == 4
    assert "not tried" not in item.reason


def test_other_steps_are_another_result(fleet):
    (one,) = migrate_fleet(refine(fleet, "plain")).items
    (other,) = migrate_fleet(refine(fleet, "plain", refine_steps=5)).items
    (later,) = migrate_fleet(refine(fleet, "plain", refine_seconds=60)).items
    assert len({one.output, other.output, later.output}) == 3


def test_between_related_bases_it_goes_on_from_a_copy(fleet, tmp_path):
    successor = tmp_path / "successor"
    shutil.copytree(fleet.source, successor)
    weights = load_file(successor / "model.safetensors")
    random = torch.Generator().manual_seed(2)
    drifted = {
        name: one + 0.05 * one.float().std() * torch.randn(one.shape, generator=random).to(one.dtype)
        for name, one in weights.items()
    }
    save_file(drifted, successor / "model.safetensors", metadata={"format": "pt"})
    adapter = fleet.adapter("measured")
    outcome = migrate_fleet(
        MigrationRequest(
            source=str(fleet.source),
            targets=[str(successor)],
            adapters=[adapter],
            method="refine",
            refine_steps=1,
        )
    )
    (item,) = outcome.items
    assert item.verdict in ("no_effect", "migrated", "harmful"), item.reason
    assert not stored("moments")
    assert len(stored("probes")) == 1  # no strings for effect: nothing is fitted
    moved = load_file(Path(item.output) / "adapter_model.safetensors")
    for name, original in load_file(Path(adapter) / "adapter_model.safetensors").items():
        assert name in moved
        assert moved[name].shape[1 if "lora_B" in name else 0] >= original.shape[1 if "lora_B" in name else 0]
