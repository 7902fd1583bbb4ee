"""Prefect without a server of one's own: the settings under which a laptop run is quiet and complete.

Prefect starts a short-lived API process when no `PREFECT_API_URL` is set. Its
defaults are made for a server that stays: telemetry, a scheduler and batch
writers that are still full when the process ends. They are changed here, only
for values the user has not set, and before Prefect is imported.
"""

from __future__ import annotations

import os

from cross_lora_core.settings import Settings

__all__ = ["configure_prefect"]

_EPHEMERAL = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}

_CLIENT = {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504"}
"""What a Prefect server answers while its own database restarts; 429, 502 and 503 are tried again anyway."""


def configure_prefect(settings: Settings, *, verbose: bool) -> bool:
    """Set Prefect's environment for a run from the command line.

    Args:
        settings: where this project keeps its things; Prefect's go beside them.
        verbose: let Prefect's own log lines through to the terminal.

    Returns:
        True when Prefect will start its own short-lived API.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    embedded = not os.environ.get("PREFECT_API_URL")
    if embedded:
        folder = settings.home.expanduser().absolute() / "prefect"
        folder.mkdir(parents=True, exist_ok=True)  # Prefect's server restarts forever where it is missing
        os.environ.setdefault("PREFECT_HOME", str(folder))
        for name, value in _EPHEMERAL.items():
            os.environ.setdefault(name, value)
    return embedded
