"""Bases, adapters and store on a real S3 server: the results are those of a run on this machine's disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
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
from flows.migrate_fleet import migrate_fleet
from tests.support.buckets import Requests, upload
from tests.support.faulty_proxy import ERROR_500, ERROR_503, LOSE_ANSWER, RESET, SPOIL, Fault, faulty_proxy
from tests.support.seaweed import Seaweed

pytestmark = [pytest.mark.services, pytest.mark.flow, pytest.mark.usefixtures("home")]
BUCKET = "fleet-on-s3"
GROUP_BYTES = str(2**17)
Place = Callable[[str], str]
BAD = (ERROR_500, ERROR_503, RESET, LOSE_ANSWER, SPOIL, Fault(cut=1000))


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
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", GROUP_BYTES)
    return lambda prefix: filled.url(BUCKET, prefix)


def request_for(source: object, target: object, adapters: object) -> MigrationRequest:
    return MigrationRequest(source=str(source), targets=[str(target)], adapters=[str(adapters)], rank=12)


def contents(store: Store) -> dict[str, str]:
    """Every result of a migration by its key; what is known of bases is none."""
    found = {one.key: one.sha256 for one in map(store.stat, store.list()) if one is not None}
    return {key: sha256 for key, sha256 in found.items() if not key.startswith("digests/")}


def verdicts(outcome: MigrationOutcome) -> list[tuple[Any, ...]]:
    return [(one.adapter, one.verdict, one.modules_landed, one.improvement) for one in outcome.items]


@dataclass(frozen=True)
class Reference:
    """What a run on this machine's disk ends with."""

    verdicts: list[tuple[Any, ...]]
    contents: dict[str, str]


@pytest.fixture(scope="module")
def here(fleet, prefect_server, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CROSS_LORA_HOME", str(tmp_path_factory.mktemp("here")))
        patched.setenv("CROSS_LORA_GROUP_BYTES", GROUP_BYTES)
        outcome = migrate_fleet(request_for(fleet.source, fleet.target, fleet.adapters))
        return Reference(verdicts(outcome), contents(open_store(load_settings().store_url)))


def test_a_fleet_on_s3_ends_as_one_on_a_disk(fleet, here, place, monkeypatch):
    monkeypatch.setenv("CROSS_LORA_STORE", place("store"))
    request = request_for(
        *(place(f"bases/{one.name}") for one in (fleet.source, fleet.target)), place("adapters")
    )
    there = migrate_fleet(request)
    assert verdicts(there) == here.verdicts
    assert contents(open_store(place("store"))) == here.contents
    assert len(here.contents) > 20
    again = migrate_fleet(request)
    assert (again.migration, again.items) == (there.migration, there.items)


def test_an_adapter_moved_over_a_bad_network_ends_the_same(fleet, here, place, filled, monkeypatch):
    monkeypatch.setenv("CROSS_LORA_WORKERS", "1")  # so that no request meets a fault twice in a row
    with faulty_proxy(filled.port) as (proxy, port):
        bad = {"endpoint": f"http://127.0.0.1:{port}", "timeout": 5}
        source, target, adapter, store = (
            filled.url(BUCKET, prefix, **bad)
            for prefix in (
                f"bases/{fleet.source.name}",
                f"bases/{fleet.target.name}",
                "adapters/measured",
                "bad-store",
            )
        )
        monkeypatch.setenv("CROSS_LORA_STORE", store)
        for base in (source, target):  # the first reading has nothing to be compared with
            open_base(base).digest  # noqa: B018
        proxy.at_random(BAD, share=0.1, seed=7)
        there = migrate_fleet(request_for(source, target, adapter))
        met = list(proxy.faults)
        proxy.clear()
        found = contents(open_store(store))
    assert verdicts(there) == [one for one in here.verdicts if one[0] == "measured"]
    assert found.items() <= here.contents.items()
    assert len(found) > 10
    assert len(met) > 10
    assert len(set(met)) >= 4


def test_a_layer_group_is_factorized_from_its_own_bytes(fleet, place):
    base = open_base(place(f"bases/{fleet.source.name}"))
    base.digest  # noqa: B018
    asked = Requests(base.files._client)
    dict(factorize_layers(base, range(1, 2), FactorSpec(rank=12, folded=True), torch.device("cpu")))
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
