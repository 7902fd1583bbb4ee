"""On a real server with a password: deploying, process workers, runs whose worker died."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments import run_deployment
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Running, Scheduled
from typer.testing import CliRunner

from cross_lora_core.migration import MigrationRequest
from flows import zombies
from flows.cli import app
from flows.zombies import free_dead_runs
from tests.support.prefect_server import AUTH, PrefectServer, running_prefect
from tests.support.servers import free_port, kill_all, with_descendants
from tests.support.workers import running_worker, wait_for

pytestmark = [pytest.mark.services, pytest.mark.flow]

REPOSITORY = Path(__file__).parents[2]
SILENCE = 40
"""Of the automation under test; heartbeats come every 30 seconds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[PrefectServer]:
    with running_prefect(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def infra(tmp_path_factory) -> Path:
    """The project's own files, with an automation that waits less."""
    folder = tmp_path_factory.mktemp("infra")
    shutil.copy(REPOSITORY / "infra" / "prefect.yaml", folder)
    shutil.copytree(REPOSITORY / "infra" / "automations", folder / "automations")
    path = folder / "automations" / "crash-silent-runs.yaml"
    automation = yaml.safe_load(path.read_text())
    automation["trigger"]["within"] = SILENCE
    path.write_text(yaml.safe_dump(automation))
    return folder / "prefect.yaml"


@pytest.fixture(scope="module")
def environment(server, tmp_path_factory) -> Iterator[dict[str, str]]:
    """Of clients and workers; also this process's, for as long as the module runs."""
    home = tmp_path_factory.mktemp("home")
    values = server.environment | {
        "PREFECT_HOME": str(home / "prefect"),
        "CROSS_LORA_HOME": str(home),
        "CROSS_LORA_GROUP_BYTES": str(2**17),
        "CROSS_LORA_WORKERS": "2",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    chosen = {PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: AUTH}
    with pytest.MonkeyPatch.context() as patched, temporary_settings(chosen):
        for name, value in values.items():
            patched.setenv(name, value)
        yield values
        EventsWorker.drain_all()  # or it sends later tests' events to this server, minutes after it is gone


@pytest.fixture(scope="module")
def deployed(environment, infra) -> dict:
    return deploy("--file", infra)


@pytest.fixture
def client(environment) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def deploy(*arguments: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, ["deploy", "--json", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def everything(client: SyncPrefectClient) -> dict[str, dict[str, UUID]]:
    pools = client.read_work_pools()
    deployments = client.read_deployments()
    automations = client.read_automations()
    return {
        kind: {one.name: one.id for one in found}
        for kind, found in (("pools", pools), ("deployments", deployments), ("automations", automations))
    }


def request_for(fleet) -> MigrationRequest:
    return MigrationRequest(
        source=str(fleet.source), targets=[str(fleet.target)], adapters=[str(fleet.adapters)], rank=12
    )


def submit(request: MigrationRequest) -> UUID:
    parameters = {"request": request.model_dump(mode="json")}
    return run_deployment(
        "migrate-fleet/migrate-fleet", parameters=parameters, timeout=0, as_subflow=False
    ).id


def test_everything_is_created_once(deployed, client, infra):
    names = {"migrate-fleet", "factorize-base", "sweep-deprecated", "promote", "rollback", "resume-dead-runs"}
    assert set(deployed["deployments"]) == names
    before = everything(client)
    assert set(before["deployments"]) == names
    assert set(before["pools"]) == {"cross-lora-cpu", "cross-lora-gpu"}
    assert set(deployed["automations"]) == set(before["automations"])
    again = deploy("--file", infra, "--devices", 3)
    assert everything(client) == before
    assert again["limits"] == {"tag:device": 3}
    assert client.read_global_concurrency_limit_by_name("tag:device").limit == 3
    client.delete_global_concurrency_limit_by_name("tag:device")


def test_deployments_import_what_is_installed(deployed, client):
    found = {one.name: one for one in client.read_deployments()}
    assert all(one.pull_steps in (None, []) and ":" not in one.entrypoint for one in found.values())
    assert [one.schedule.cron for one in found["sweep-deprecated"].schedules] == ["17 3 * * *"]
    schema = json.dumps(found["migrate-fleet"].parameter_openapi_schema)
    for text in ("subspace+null", "Singular vectors kept", "Adapters to move", "float16"):
        assert text in schema
    assert set(found["promote"].parameter_openapi_schema["properties"]) >= {"adapter", "target", "reason"}


def test_what_an_operator_set_on_a_pool_stays(deployed, client, infra):
    from prefect.client.schemas.actions import WorkPoolUpdate

    client.update_work_pool("cross-lora-gpu", WorkPoolUpdate(concurrency_limit=7))
    deploy("--file", infra)
    assert client.read_work_pool("cross-lora-gpu").concurrency_limit == 7


@pytest.mark.skipif(
    version("sqlalchemy").startswith("2.1"), reason="with SQLAlchemy 2.1 the scheduler of Prefect 3.8 fails"
)
def test_the_schedule_schedules(deployed, client):
    deployment = client.read_deployment_by_name("sweep-deprecated/sweep-deprecated")
    where = {"deployments": {"id": {"any_": [str(deployment.id)]}}}
    runs = wait_for(
        lambda: client.request("POST", "/flow_runs/filter", json=where).json(), "a scheduled sweep", 120
    )
    assert all(one["state_name"] == "Scheduled" and "T03:17" in one["expected_start_time"] for one in runs)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"PREFECT_API_URL": ""}, 1, "PREFECT_API_URL"),
        ({"PREFECT_API_AUTH_STRING": "fleet:wrong"}, 1, "PREFECT_API_AUTH_STRING"),
        ({"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}, 5, "Start the server"),
    ],
)
def test_a_server_that_is_not_there_or_refuses(environment, infra, monkeypatch, changes, code, words):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    settings = {"PREFECT_API_URL": PREFECT_API_URL, "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING}
    with temporary_settings({settings[name]: value for name, value in changes.items()}):
        answer = deploy("--file", infra, code=code)
    assert words in answer["message"]
    assert "wrong" not in answer["message"]


def test_a_file_that_is_no_prefect_file(environment, tmp_path):
    assert "--file" in deploy("--file", tmp_path / "absent.yaml", code=1)["message"]
    odd = tmp_path / "prefect.yaml"
    odd.write_text(
        "pull: []\ndeployments: [{name: x, entrypoint: flows.absent.x, work_pool: {name: cross-lora-cpu}}]\n"
    )
    assert "flows.absent" in deploy("--file", odd, code=1)["message"]


def test_a_worker_runs_what_was_deployed_and_another_ends_it_when_the_first_is_killed(
    deployed, environment, client, fleet, tmp_path
):
    """Heartbeats stop, the automation crashes the run, resume-dead-runs schedules it, a new worker ends it."""
    with running_worker("cross-lora-gpu", tmp_path, environment) as doomed:
        run = submit(request_for(fleet))
        factors = Path(environment["CROSS_LORA_HOME"]) / "store" / "factors"
        wait_for(lambda: list(factors.rglob("*.safetensors")), "the first stored factors")
        kill_all(with_descendants(doomed.pid))
    with (
        running_worker("cross-lora-gpu", tmp_path, environment),
        running_worker("cross-lora-cpu", tmp_path, environment),
    ):
        wait_for(lambda: client.read_flow_run(run).state.is_completed(), "the run to end", 400)
    ended = client.read_flow_run(run)
    assert ended.run_count == 2
    assert {"cross-lora", "base:old-llama", "target:new-gemma", "method:cross-lora"} <= set(ended.tags)
    names = [one.name for one in sorted(client.read_flow_run_states(run), key=lambda one: one.timestamp)]
    assert names.index("Crashed") < names.index("AwaitingRetry") < names.index("Completed")
    status = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    verdicts = {one["adapter"]: one["verdict"] for one in status["items"]}
    assert verdicts.pop("measured") in ("no_effect", "harmful")
    assert verdicts == {
        "broken": "refused",
        "empty": "no_effect",
        "plain": "unverified",
        "wide": "unverified",
    }


class TestFreeDeadRuns:
    """Without workers: states and heartbeats are what the server was told."""

    @pytest.fixture
    def run(self, deployed, client) -> Iterator[UUID]:
        deployment = client.read_deployment_by_name("factorize-base/factorize-base")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"base": "old"}, state=Scheduled()
        )
        client.set_flow_run_state(run.id, Running(), force=True)
        yield run.id
        client.delete_flow_run(run.id)

    @pytest.fixture
    def an_hour_later(self, monkeypatch) -> None:
        """States look as old as they will be then."""
        monkeypatch.setattr(zombies, "_changed", lambda run: run.state.timestamp - timedelta(hours=1))

    @pytest.mark.usefixtures("an_hour_later")
    def test_a_silent_run_is_resumed_until_it_crashed_too_often(self, client, run):
        for crashes, became in ((1, "resumed"), (2, "resumed"), (3, "given up")):
            client.set_flow_run_state(run, Running(), force=True)
            (one,) = free_dead_runs(silent_seconds=600, attempts=3)
            assert (one.flow_run, one.crashes, one.became) == (str(run), crashes, became)
        assert client.read_flow_run(run).state.name == "Crashed"

    def test_a_run_that_changed_lately_is_alive(self, client, run):
        assert free_dead_runs(silent_seconds=600, attempts=3) == []
        assert client.read_flow_run(run).state.name == "Running"

    @pytest.mark.usefixtures("an_hour_later")
    def test_a_run_with_a_heartbeat_is_alive(self, client, run):
        resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
        beat = Event(event="prefect.flow-run.heartbeat", resource=resource)
        client.request(
            "POST", "/events", json=[beat.model_dump(mode="json")]
        )  # an emitter may serve another server
        wait_for(lambda: seen_heartbeat(client, run), "the heartbeat's event")
        assert free_dead_runs(silent_seconds=600, attempts=3) == []
        assert client.read_flow_run(run).state.name == "Running"

    @pytest.mark.usefixtures("an_hour_later")
    def test_crashes_long_ago_are_left_alone(self, client, run):
        assert free_dead_runs(silent_seconds=600, attempts=3, within_hours=0.5) == []
        assert client.read_flow_run(run).state.name == "Crashed"


def seen_heartbeat(client: SyncPrefectClient, run: UUID) -> bool:
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    return client.request("POST", "/events/filter", json={"filter": wanted}).json()["total"] > 0
