"""Wait until a Prefect server has written down what a flow run did: it does so later, from a queue.

As long as that queue is not empty a server on SQLite refuses to make flow runs: its own writers overtake the
request's transaction. The client then tries again after 2, 4, 8 and more seconds, six times in all.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import get_client, runtime
from prefect.client.schemas.objects import TERMINAL_STATES

__all__ = ["await_records"]

_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 3.0
"""After which no more task runs are expected: those of an adapter that broke never end."""

_ENDED = [state.value for state in TERMINAL_STATES]


def await_records(expected: int) -> None:
    """Return when the server knows that the current flow run's task runs ended.

    Args:
        expected: how many there are, where none of them broke.
    """
    seen, since = -1, time.monotonic()
    with get_client(sync_client=True) as client:
        while (found := _count_ended(client)) < expected:
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > _QUIET_SECONDS:
                return
            time.sleep(_LOOK_SECONDS)


def _count_ended(client: Any) -> int:
    asked = {
        "flow_runs": {"id": {"any_": [str(runtime.flow_run.id)]}},
        "task_runs": {"state": {"type": {"any_": _ENDED}}},
    }
    answer = client.request("POST", "/task_runs/count", json=asked)
    answer.raise_for_status()
    return int(answer.json())
