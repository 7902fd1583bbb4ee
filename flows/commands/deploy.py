"""`cross-lora deploy`: work pools, limits, deployments and automations on a Prefect server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.output import JsonFlag, document, reporting_errors, say

if TYPE_CHECKING:
    from flows.deploying import Deployed

__all__ = ["deploy"]


def deploy(
    file: Annotated[Path, typer.Option("--file", help="Prefect file of this project")] = Path(
        "infra/prefect.yaml"
    ),
    devices: Annotated[
        int | None,
        typer.Option("--devices", min=1, help="Device tasks at once over all workers; default: as it is"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create or update everything on the server at PREFECT_API_URL; a second time changes nothing."""
    with reporting_errors(as_json):
        from flows.deploying import deploy_project

        deployed = deploy_project(file, devices)
        document(asdict(deployed), as_json, lambda: _show(deployed))


def _show(deployed: Deployed) -> None:
    say(f"on {deployed.server}")
    say(f"work pools:   {', '.join(deployed.pools)}")
    say(
        f"limits:       {', '.join(f'{name} {limit}' for name, limit in deployed.limits.items()) or 'as set'}"
    )
    say(f"deployments:  {', '.join(deployed.deployments)}")
    say(f"automations:  {', '.join(deployed.automations)}")
    for pool in deployed.pools:
        say(f"start a worker with: prefect worker start --pool {pool}")
