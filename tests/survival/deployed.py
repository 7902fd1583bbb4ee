"""A migration as a run of the deployment `migrate-fleet`: started, taken by a worker, freed when that died."""

from __future__ import annotations

import getpass
import json
import sys
import time

import httpx

from tests.survival.launching import ROOT, Run
from tests.survival.stand import RANK, Ground, Stand

POOL = "cross-lora-gpu"
SILENCE_SECONDS = 4.0
"""A little more than what the launcher's `free-dead-runs` takes for dead."""
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def deploy(stand: Stand) -> None:
    """Pools, deployments and automations, by the documented command."""
    folder = stand.folder / "deployed"
    folder.mkdir()
    run = stand.run(folder, "cross-lora", "deploy", "--file", str(ROOT / "infra" / "prefect.yaml"))
    assert run.wait(240) == 0, run.said[-3000:]


def submit(stand: Stand, ground: Ground) -> None:
    """Ask the server for the same migration that the command line makes."""
    fleet = stand.fleet
    request = {"source": fleet["source"], "targets": [fleet["target"]], "adapters": [fleet["adapter"]]}
    request |= {"rank": RANK, "requested_by": getpass.getuser()}
    run = stand.run(
        ground.folder, "prefect", "deployment", "run", "migrate-fleet/migrate-fleet",
        "--param", f"request={json.dumps(request)}",
        "--job-variable", f"command={json.dumps(f'{sys.executable} -m tests.survival.flow_run')}",
        "--job-variable", f"env={json.dumps({'PYTHONPATH': str(ROOT), **ground.environment})}",
        "--tag", ground.folder.name,
    )  # fmt: skip
    assert run.wait(120) == 0, run.said[-3000:]


def start_worker(stand: Stand, ground: Ground) -> Run:
    arguments = ["worker", "start", "--pool", POOL, "--type", "process"]
    return stand.run(ground.folder, "prefect", *arguments)


def state_of(stand: Stand, ground: Ground) -> str:
    """Of the ground's flow run, as the server believes."""
    question = {"flow_runs": {"tags": {"all_": [ground.folder.name]}}}
    user, _, password = stand.prefect.auth.partition(":")
    url = f"{stand.prefect.api_url}/flow_runs/filter"
    (run,) = httpx.post(url, json=question, auth=(user, password), timeout=60).json()
    return str(run["state"]["type"])


def finish(stand: Stand, ground: Ground, seconds: float) -> str:
    """Free the run that the dead worker left, start a worker again, and return the state the run ends in."""
    time.sleep(SILENCE_SECONDS)
    freeing = stand.run(ground.folder, "free-dead-runs")
    assert freeing.wait(120) == 0, freeing.said[-3000:]
    worker = start_worker(stand, ground)
    try:
        return _awaited(stand, ground, seconds)
    finally:
        worker.kill()


def _awaited(stand: Stand, ground: Ground, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while (state := state_of(stand, ground)) not in _FINAL and time.monotonic() < deadline:
        time.sleep(0.5)
    return state
