"""A tag set in a live MLflow leads to a finished migration: webhook, receiver, Prefect server, flow, catalog."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent

from cross_lora_core.migration import register_base
from cross_lora_core.models import open_base
from tasks.register_adapters import register_adapters
from tasks.runtime import open_catalog
from tests.support.fleets import make_adapter
from tests.support.mlflow_server import running_mlflow
from tests.support.pico_models import build_pico
from tests.support.prefect_server import running_prefect
from tests.support.servers import free_port, running, start, stop, wait_until

pytestmark = pytest.mark.services
SECRET = "of-a-test"
PATIENCE = 240
OLD = ("old-llama", "older-llama", "oldest-llama")
COMMAND = [sys.executable, "-m", "flows.cli"]
WORKER = [sys.executable, "-m", "prefect", "worker", "start", "--pool"]
CONFIG = """
migration: {rank: 12}
mlflow:
  - {model: llama, base: old-llama, successor: new-gemma, deprecated_by: [{tag: deprecated}]}
  - {model: older, base: older-llama, successor: new-gemma, deprecated_by: [{alias: end-of-life}]}
"""


@dataclass
class Stand:
    """A Prefect server with the deployment, an MLflow server, and the environment of this project's processes."""

    folder: Path
    environment: dict[str, str]
    mlflow: str


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "triggers.yaml").write_text(CONFIG)
    own = {
        "CROSS_LORA_HOME": str(folder / "home"),
        "CROSS_LORA_WEBHOOK_CONFIG": str(folder / "triggers.yaml"),
        "CROSS_LORA_WEBHOOK_SECRET_MLFLOW": SECRET,
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
    }
    with running_prefect(folder / "prefect") as prefect, running_mlflow(folder / "mlflow") as mlflow:
        environment = {**own, **prefect.environment}
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("CROSS_LORA_HOME", own["CROSS_LORA_HOME"])
            _fill_catalog(folder)
            deployed = start([*COMMAND, "deploy"], folder / "deploy.log", env=environment)
            assert deployed.wait(PATIENCE) == 0, (folder / "deploy.log").read_text()
            worker = start([*WORKER, "cross-lora-gpu"], folder / "worker.log", env=environment)
            try:
                yield Stand(folder, environment, mlflow)
            finally:
                stop(worker)


def _fill_catalog(folder: Path) -> None:
    build_pico(
        "gemma3_text", folder / "new-gemma", width=48, layers=2, seed=1, tokenizer="sentencepiece-like"
    )
    for number, name in enumerate(OLD):
        build_pico("llama", folder / name, layers=2, seed=number)
        make_adapter(folder / name, folder / f"on-{name}", seed=number)
    for name in ("new-gemma", *OLD):
        with open_catalog().begin() as work:
            register_base(work, open_base(folder / name))
    for name in OLD:
        register_adapters([str(folder / f"on-{name}")], name, None, None)
    with open_catalog().begin() as work:
        work.deprecate_base("oldest-llama", on=date(2999, 1, 1), successor="new-gemma")


@pytest.fixture
def registry(stand: Stand) -> MlflowClient:
    client = MlflowClient(tracking_uri=stand.mlflow, registry_uri=stand.mlflow)
    if not client.search_registered_models():
        for name in ("llama", "older"):
            client.create_registered_model(name)
            client.create_model_version(name, source=f"s3://models/{name}")
    return client


def migrated(base: str) -> bool:
    """Whether the adapter of a base has an honest verdict on its successor."""
    with open_catalog().begin() as work:
        target = work.base_named("new-gemma")
        return [one.verdict for one in work.results_of(f"on-{base}", target.id)] == ["unverified"]


def starts() -> list[Any]:
    with open_catalog().begin() as work:
        return work.starts()


def test_a_tag_leads_to_a_finished_migration(stand: Stand, registry: MlflowClient):
    port = free_port()
    log = stand.folder / "receiver.log"
    with running([*COMMAND, "webhook", "serve", "--port", str(port)], log, port=port, env=stand.environment):
        registry.create_webhook(
            "cross-lora",
            f"http://127.0.0.1:{port}/webhooks/mlflow",
            [WebhookEvent("model_version_tag", "set")],
            secret=SECRET,
        )
        registry.set_model_version_tag("llama", "1", "stage", "production")
        registry.set_model_version_tag("llama", "1", "deprecated", "true")
        wait_until(lambda: migrated("old-llama"), None, stand.folder / "worker.log", PATIENCE)
    with open_catalog().begin() as work:
        states = {one.summary: one.state for one in work.deliveries()}
        (start,) = work.starts()
        (migration,) = work.migrations()
    assert states == {
        "llama version 1: tag stage=production": "ignored",
        "llama version 1: tag deprecated=true": "started",
    }
    assert start.flow_run
    assert migration.requested_by == "webhook mlflow"
    assert SECRET not in log.read_text()


def test_what_no_webhook_told_is_found_by_sweeps_that_start_it_once(stand: Stand, registry: MlflowClient):
    before = {one.key for one in starts()}
    registry.set_registered_model_alias("older", "end-of-life", "1")
    environment = stand.environment | {"MLFLOW_TRACKING_URI": stand.mlflow}
    sweeps = [
        start([*COMMAND, "sweep", "--json"], stand.folder / f"sweep-{number}.json", env=environment)
        for number in range(2)
    ]
    assert [one.wait(PATIENCE) for one in sweeps] == [0, 0]
    wait_until(lambda: migrated("older-llama"), None, stand.folder / "worker.log", PATIENCE)
    (new,) = [one for one in starts() if one.key not in before]
    assert new.request["adapters"] == ["on-older-llama"]
    with open_catalog().begin() as work:
        assert len(work.migrations()) == 2
    again = start([*COMMAND, "sweep", "--json"], stand.folder / "again.json", env=environment)
    assert again.wait(PATIENCE) == 0
    said = (stand.folder / "again.json").read_text()
    assert json.loads(said[said.index("[") :]) == []


EMIT = """
from cross_lora_core.migration import TransferOptions
from flows.starting import start_source
assert start_source("oldest-llama", TransferOptions(rank=12), "webhook generic").state == "event"
"""


def test_an_event_makes_the_automation_start_a_sweep(stand: Stand):
    """Nobody works on the sweep's pool here: the run that the automation asks for is enough."""
    environment = stand.environment | {"CROSS_LORA_WEBHOOK_START": "event"}
    assert start([sys.executable, "-c", EMIT], stand.folder / "emit.log", env=environment).wait(PATIENCE) == 0
    wait_until(lambda: "sweep-deprecated" in waiting_flows(stand), None, stand.folder / "emit.log", PATIENCE)


def waiting_flows(stand: Stand) -> set[str]:
    """Names of the flows of deployment runs that were asked for and have not begun, the nightly one aside."""
    user, password = stand.environment["PREFECT_API_AUTH_STRING"].split(":")
    with httpx.Client(base_url=stand.environment["PREFECT_API_URL"], auth=(user, password)) as client:
        runs = client.post(
            "/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        ).json()
        flows = {one["id"]: one["name"] for one in client.post("/flows/filter", json={}).json()}
    return {flows[one["flow_id"]] for one in runs if not one["auto_scheduled"]}
