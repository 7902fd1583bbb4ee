"""Bases, adapters and store on a real S3 server: the results are those of a run on this machine's disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cross_lora_core.migration import FactorSpec, MigrationOutcome, MigrationRequest, factorize_layers
from cross_lora_core.models import open_base
from cross_lora_core.settings import load_settings
from cross_lora_core.storage import Store, open_store
from flows.cli import app
from flows.migrate_fleet import start_migration
from tests.support.buckets import Requests, upload
from tests.support.seaweed import Seaweed

pytestmark = [pytest.mark.services, pytest.mark.flow, pytest.mark.usefixtures("home")]
BUCKET = "fleet-on-s3"
Place = Callable[[str], str]


@pytest.fixture(scope="module")
def filled(seaweed: Seaweed, fleet) -> Seaweed:
    client = seaweed.client()
    client.create_bucket(Bucket=BUCKET)
    for folder in (fleet.source, fleet.target):
        upload(client, folder, BUCKET, f"bases/{folder.name}")
    upload(client, fleet.adapters, BUCKET, "adapters")
    return seaweed


@pytest.fixture
def place(filled: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The URL of a prefix; this machine has nothing of it in its caches."""
    for name, value in filled.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))
    return lambda prefix: filled.url(BUCKET, prefix)


def request_for(source: object, target: object, adapters: object) -> MigrationRequest:
    return MigrationRequest(source=str(source), targets=[str(target)], adapters=[str(adapters)], rank=12)


def contents(store: Store) -> dict[str, str]:
    """Every result of a migration by its key; what is known of bases is none."""
    found = {one.key: one.sha256 for one in map(store.stat, store.list()) if one is not None}
    return {key: sha256 for key, sha256 in found.items() if not key.startswith("digests/")}


def verdicts(outcome: MigrationOutcome) -> list[tuple[Any, ...]]:
    return [(one.adapter, one.verdict, one.modules_landed, one.improvement) for one in outcome.items]


@pytest.mark.usefixtures("prefect_server")
def test_a_fleet_on_s3_ends_as_one_on_a_disk(fleet, place, monkeypatch, tmp_path):
    here = start_migration(request_for(fleet.source, fleet.target, fleet.adapters))
    expected = contents(open_store(load_settings().store_url))
    monkeypatch.setenv("CROSS_LORA_HOME", str(tmp_path / "other-home"))
    monkeypatch.setenv("CROSS_LORA_STORE", place("store"))
    names = fleet.source.name, fleet.target.name
    there = start_migration(request_for(*(place(f"bases/{name}") for name in names), place("adapters")))
    assert verdicts(there) == verdicts(here)
    assert contents(open_store(place("store"))) == expected
    assert len(expected) > 20
    again = start_migration(request_for(*(place(f"bases/{name}") for name in names), place("adapters")))
    assert (again.migration, again.items) == (there.migration, there.items)


def test_a_layer_group_is_factorized_from_its_own_bytes(fleet, place):
    base = open_base(place(f"bases/{fleet.source.name}"))
    base.digest  # noqa: B018
    asked = Requests(base.files._client)
    factorize_layers(base, range(1, 2), FactorSpec(rank=12, folded=True), torch.device("cpu"))
    tensors = [one for name, one in base._checkpoint.tensors.items() if ".layers.1." in name]
    least = sum(one.stop - one.start for one in tensors)
    weights = sorted(one.stop - one.start for one in tensors if len(one.shape) == 2)
    assert sorted(size for _, size in asked if size in weights) == weights, "each weight once, by one request"
    assert least <= asked.bytes < 1.02 * least, "norms are read once per weight they belong to"


def answer(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.output
    return json.loads(result.stdout)


def test_commands_take_urls(fleet, place):
    source, adapter = place(f"bases/{fleet.source.name}"), place("adapters/measured")
    (base,) = answer("base", "add", source)
    assert (base["name"], base["location"]) == (fleet.source.name, source)
    assert answer("adapter", "check", adapter, "--base", source)["status"] == "ok"
    (added,) = answer("adapter", "add", adapter, "--base", fleet.source.name, "--owner", "ops")
    assert (added["name"], added["location"], added["status"]) == ("measured", adapter, "ok")
    (listed,) = answer("adapter", "list")
    assert listed["evaluation"] == place("adapters/measured/evaluation.jsonl")
    target = place(f"bases/{fleet.target.name}")
    planned = answer("plan", "--source", fleet.source.name, "--target", target, "--rank", "12")
    assert [(one["adapter"], one["refusal"]) for one in planned["items"]] == [("measured", None)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["base", "add"],
        ["adapter", "check"],
        ["adapter", "add", "--base", "b"],
        ["migrate", "--target", "b", "--source"],
        ["migrate", "--source", "a", "--target", "b", "--adapter"],
        ["plan", "--source", "a", "--target", "b", "--evaluation"],
    ],
    ids=" ".join,
)
def test_credentials_in_a_url_are_refused(arguments):
    result = CliRunner().invoke(app, [*arguments, "s3://key:s3cret@bucket/x", "--json"])
    assert result.exit_code == 1
    assert "s3cret" not in result.output + str(result.stderr)
