"""Tags of tasks, which Prefect takes for names of limits: they stay where the server has such a limit.

For every tagged task run the engine asks a service thread, and now and then the server, whether it may start.
Where nothing is limited that is most of what a short task run costs.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.tasks import Task

__all__ = ["LimitedTags"]

_PAGE = 200
_PREFIX = "tag:"


class LimitedTags:
    """The tags that the server limits, as they were when a flow run submitted its first task."""

    def __init__(self) -> None:
        self._limited: frozenset[str] | None = None
        self._lean: dict[int, tuple[Task[..., Any], Task[..., Any]]] = {}

    def lean(self, task: Task[..., Any]) -> Task[..., Any]:
        """The task with the tags alone that are limited."""
        if self._limited is None:
            self._limited = _limited_tags()
        if id(task) not in self._lean:
            self._lean[id(task)] = (task, _with_tags(task, set(task.tags) & self._limited))
        return self._lean[id(task)][1]


def _with_tags(task: Task[..., Any], tags: set[str]) -> Task[..., Any]:
    lean = copy(task)  # `with_options` cannot take all tags away
    lean.tags = tags
    return lean


def _limited_tags() -> frozenset[str]:
    with get_client(sync_client=True) as client:
        names = _limits(client)
    return frozenset(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))


def _limits(client: SyncPrefectClient) -> list[str]:
    names: list[str] = []
    while page := client.read_global_concurrency_limits(limit=_PAGE, offset=len(names)):
        names += [one.name for one in page]
    return names
