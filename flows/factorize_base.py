"""Factorize a base model before any fleet asks for it, for example when a successor is registered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_table_artifact
from pydantic import Field

from cross_lora_core.migration import short_name
from flows.run_labels import label_run
from flows.task_runners import RUNNER
from tasks.factorize_base import factorize_group
from tasks.plan_factors import plan_factors
from tasks.summary_artifacts import artifact_key

__all__ = ["factorize_base"]

Base = Annotated[str, Field(min_length=1, description="The base model: registered name, folder or hub id")]
Rank = Annotated[int, Field(ge=1, le=8192, description="Singular vectors kept per weight, as in migrations")]
Anchor = Annotated[
    Literal["tokens", "index"],
    Field(description="How migrations that use these factors will pair singular vectors"),
]


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"{short_name(given['base'])} rank {given['rank']}"


@flow(name="factorize-base", flow_run_name=_run_name, task_runner=RUNNER, persist_result=False)
def factorize_base(base: Base, rank: Rank = 320, anchor: Anchor = "tokens") -> list[dict[str, Any]]:
    """Compute and store the truncated SVD of every weight of a base; migrations then find it stored."""
    plan = plan_factors(base, rank, anchor)
    label_run(base=[plan.base.name])
    futures = [factorize_group.submit(plan.base, group, plan.spec) for group in plan.groups]
    stored = [one.result() for one in futures]
    rows = [
        {"layers": f"{group.first}–{group.last}", "key": one.key, "bytes": one.size}
        for group, one in zip(plan.groups, stored, strict=True)
    ]
    total = sum(one.size for one in stored)
    get_run_logger().info("%s: %d layer groups, %.1f MB", plan.base.name, len(rows), total / 2**20)
    create_table_artifact(
        rows,
        key=artifact_key("factors", plan.base.name),
        description=f"{len(rows)} layer groups of {plan.base.name}, rank {rank}",
    )
    return rows
