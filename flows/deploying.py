"""Put this project on a Prefect server: work pools, concurrency limits, deployments, automations.

Everything is created under a fixed name and updated in place, so deploying a
second time changes nothing. Pools and limits that exist keep what an operator
set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPStatusError, RequestError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from cross_lora_core.errors import ConfigurationError, PrefectUnavailable
from tasks.device_slots import DEVICE_TAG

__all__ = ["Deployed", "deploy_project"]

_OUTPUT_LINES = 15


@dataclass(frozen=True)
class Deployed:
    """Names of what is on the server now."""

    server: str
    pools: tuple[str, ...]
    limits: dict[str, int]
    deployments: tuple[str, ...]
    automations: tuple[str, ...]


def deploy_project(file: Path, devices: int | None) -> Deployed:
    """Create or update everything that `prefect.yaml` and the automations beside it name.

    Args:
        file: a `prefect.yaml`; automations are read from the folder `automations` beside it.
        devices: device tasks at once over all workers; None keeps the limit there is, or sets none.

    Raises:
        ConfigurationError: no server is set, it refuses the credentials, or the file cannot be used.
        PrefectUnavailable: the server does not answer.
    """
    server = _server()
    declared = _declared(file)
    with get_client(sync_client=True) as client, _explained(server):
        pools = tuple(sorted({one["work_pool"]["name"] for one in declared}))
        for pool in pools:
            _ensure_pool(client, pool)
        limits = {f"tag:{DEVICE_TAG}": devices} if devices else {}
        for name, limit in limits.items():
            client.upsert_global_concurrency_limit_by_name(name, limit)
        _apply_deployments(file)
        automations = tuple(_ensure_automation(client, one) for one in _automation_files(file))
    return Deployed(server, pools, limits, tuple(one["name"] for one in declared), automations)


def _server() -> str:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise ConfigurationError(
            "the URL of a Prefect server",
            "none",
            "environment variable PREFECT_API_URL",
            "Set it, for example to http://127.0.0.1:4200/api; `prefect server start` starts a server.",
        )
    return url


def _declared(file: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        remedy = "Name the project's infra/prefect.yaml with --file."
        raise ConfigurationError(
            "a prefect.yaml with deployments", type(error).__name__, str(file), remedy
        ) from error
    return found


@contextmanager
def _explained(server: str) -> Iterator[None]:
    """Turn what the HTTP client raises into errors that say what to do."""
    try:
        yield
    except HTTPStatusError as error:
        status = error.response.status_code
        if status not in (401, 403):
            raise
        remedy = "Set PREFECT_API_AUTH_STRING to the server's user:password, or PREFECT_API_KEY."
        raise ConfigurationError(
            "credentials that the server accepts", f"HTTP status {status}", server, remedy
        ) from error
    except RequestError as error:
        remedy = "Start the server or correct PREFECT_API_URL, then run the same command again."
        raise PrefectUnavailable("an answer", type(error).__name__, server, remedy) from error


def _ensure_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _apply_deployments(file: Path) -> None:
    """Let Prefect's own command apply the file, so that there is one reading of it."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_OUTPUT_LINES:])
        raise ConfigurationError(
            "`prefect deploy` to accept the file",
            f"exit code {done.returncode}: {said}",
            str(file),
            f"Correct it; `prefect deploy --all --prefect-file {file}` shows everything.",
        )


def _automation_files(file: Path) -> list[Path]:
    return sorted((file.parent / "automations").glob("*.yaml"))


def _ensure_automation(client: SyncPrefectClient, file: Path) -> str:
    """Create or update one automation; an action's `deployment: flow/name` becomes the deployment's id."""
    declared = yaml.safe_load(file.read_text(encoding="utf-8"))
    for action in declared["actions"]:
        if name := action.pop("deployment", None):
            action |= {"source": "selected", "deployment_id": client.read_deployment_by_name(name).id}
    automation = AutomationCore.model_validate(declared)
    existing = client.read_automations_by_name(automation.name)
    if existing:
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)
    return automation.name
