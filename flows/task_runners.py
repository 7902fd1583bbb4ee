"""What runs a flow's tasks, by setting: threads of the flow's process, a Dask cluster or a Ray cluster.

A flow is defined with `RUNNER`, and every run of it, from the command
line or by a worker, gets the runner that the settings name where it runs.
Tasks tagged `device` need a device each; how it is reserved is the runner's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.settings import Settings, load_settings

__all__ = ["RUNNER", "chosen_runner"]


class _RunnerOfSettings(ThreadPoolTaskRunner[Any]):
    """Stands in a flow's definition; Prefect duplicates it when a run starts."""

    def duplicate(self) -> Any:
        """The task runner of this run."""
        return chosen_runner(load_settings())


RUNNER: Any = _RunnerOfSettings()
"""For `@flow(task_runner=RUNNER)`."""


def chosen_runner(settings: Settings) -> TaskRunner[Any]:
    """The task runner of the settings, not started yet.

    Raises:
        ConfigurationError: the extra it needs is not installed.
    """
    if settings.task_runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.workers)
    try:
        module = import_module(f"flows.{settings.task_runner}_runner")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"package {error.name}",
            "not installed",
            f"CROSS_LORA_TASK_RUNNER={settings.task_runner}",
            f"pip install 'cross-lora-fleet[{settings.task_runner}]'",
        ) from error
    runner: TaskRunner[Any] = module.make_runner(settings)
    return runner
