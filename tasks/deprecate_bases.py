"""What a model registry says becomes a deprecated base in the catalog: told by events, or asked for."""

from __future__ import annotations

import os

from prefect import get_run_logger, task

from cross_lora_core.catalog import Work
from cross_lora_core.errors import RecordConflict, RecordNotFound
from cross_lora_core.registry import Deprecation, RegistryConfig, poll_mlflow
from tasks.runtime import TASK_OPTIONS, open_catalog

__all__ = ["mark_deprecated", "poll_registry"]


def mark_deprecated(meant: Deprecation) -> bool:
    """Mark a base as deprecated from now on, with its successor; returns whether that changed anything.

    Raises:
        RecordNotFound: the catalog has no such base or successor.
        RecordConflict: a base as its own successor.
    """
    with open_catalog().begin() as work:
        if _is_so(work, meant):
            return False
        work.deprecate_base(meant.base, on=None, successor=meant.successor)
        return True


def _is_so(work: Work, meant: Deprecation) -> bool:
    base = work.base_named(meant.base)
    if base is None or base.status != "deprecated" or base.deprecated_on is not None:
        return False
    successor = work.base(base.successor_id).name if base.successor_id else None
    return meant.successor in (None, successor)


@task(name="poll registry", task_run_name="poll MLflow", **TASK_OPTIONS)
def poll_registry(config: RegistryConfig) -> list[str]:
    """Ask MLflow (`MLFLOW_TRACKING_URI`) what its webhooks may have missed; returns newly deprecated bases.

    A base the catalog does not know is logged and left: the others are not its fault.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri or not config.mlflow:
        return []
    events = poll_mlflow(uri, (one.model for one in config.mlflow))
    meant = {config.deprecation_by(event): event.summary for event in events}
    changed = []
    for deprecation, why in meant.items():
        if deprecation is None:
            continue
        try:
            changed += [deprecation.base] if mark_deprecated(deprecation) else []
        except (RecordNotFound, RecordConflict) as error:
            get_run_logger().warning("%s: %s", why, error)
    return changed
