"""What runs a flow's tasks, by setting: threads of the flow's process, a Dask cluster or a Ray cluster.

A flow is defined with `RUNNER`, and every run of it, from the command
line or by a worker, gets the runner that the settings name where it runs.
Tasks tagged `device` need a device each; how it is reserved is the runner's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.settings import Settings, load_settings
from flows.tag_limits import LimitedTags

__all__ = ["RUNNER", "BorrowedRunner", "chosen_runner"]


class _Threads(ThreadPoolTaskRunner[Any]):
    """Prefect's threads; a task loses the tags that nothing counts."""

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(max_workers)
        self._tags = LimitedTags()

    def submit(self, task: Task[..., Any], *values: Any, **named: Any) -> Any:
        """Submit a task."""
        return super().submit(self._tags.lean(task), *values, **named)


class _RunnerOfSettings(ThreadPoolTaskRunner[Any]):
    """Stands in a flow's definition; Prefect duplicates it when a run starts."""

    def duplicate(self) -> Any:
        """The task runner of this run."""
        return chosen_runner(load_settings())


RUNNER: Any = _RunnerOfSettings()
"""For `@flow(task_runner=RUNNER)`."""


class BorrowedRunner(TaskRunner[Any]):
    """A runner that another flow run has started and will stop; a child flow run submits to it."""

    def __init__(self, started: TaskRunner[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lender = started

    def duplicate(self) -> BorrowedRunner:
        """Another loan of the same runner."""
        return BorrowedRunner(self._lender)

    def submit(self, *values: Any, **named: Any) -> Any:
        """Submit a task to the lender."""
        return self._lender.submit(*values, **named)


def chosen_runner(settings: Settings) -> TaskRunner[Any]:
    """The task runner of the settings, not started yet.

    Raises:
        ConfigurationError: the extra it needs is not installed.
    """
    if settings.task_runner == "threads":
        return _Threads(max_workers=settings.workers)
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
