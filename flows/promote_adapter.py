"""Flows that move an adapter's alias on a target: promote a result, roll back to the one before."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, runtime
from pydantic import Field

from tasks.move_alias import promote_adapter, rollback_adapter

__all__ = ["promote", "rollback"]

Adapter = Annotated[str, Field(min_length=1, description="Name of the adapter")]
Target = Annotated[str, Field(min_length=1, description="The registered base it serves on")]
Actor = Annotated[str, Field(min_length=1, description="Who decides this; kept in the catalog")]
Reason = Annotated[str, Field(description="Why; kept in the catalog")]
Migration = Annotated[int | None, Field(description="Whose result; empty: the latest migration that has one")]
Accept = Annotated[
    Literal["no_effect", "harmful", "needs_retraining", "unverified"] | None,
    Field(description="Promote in spite of this verdict; only migrated and copied go without"),
]


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"{runtime.flow_run.flow_name} {given['adapter']} on {given['target']}"


@flow(name="promote", flow_run_name=_run_name)
def promote(
    adapter: Adapter,
    target: Target,
    actor: Actor,
    reason: Reason = "",
    migration: Migration = None,
    accept: Accept = None,
) -> dict[str, Any]:
    """Point an adapter's alias on a target at a result: a row in the catalog, and `latest.json` for servers.

    Promoting what is current already changes nothing.
    """
    moved = promote_adapter(adapter, target, migration, actor, reason, accept)
    get_run_logger().info("%s on %s → %s, by %s: %s", adapter, target, moved["output"], actor, reason)
    return moved


@flow(name="rollback", flow_run_name=_run_name)
def rollback(adapter: Adapter, target: Target, actor: Actor, reason: Reason = "") -> dict[str, Any]:
    """Point an adapter's alias on a target back at the result before the current one."""
    moved = rollback_adapter(adapter, target, actor, reason)
    get_run_logger().info("%s on %s → %s, by %s: %s", adapter, target, moved["output"], actor, reason)
    return moved
