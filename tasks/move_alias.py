"""Promote a result under an adapter's name, or return to the one before; both are audited."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cross_lora_core.catalog import BaseRecord, PromotionRecord, Work
from cross_lora_core.errors import RecordNotFound
from tasks.runtime import open_catalog

__all__ = ["promote_adapter", "rollback_adapter"]


def promote_adapter(
    adapter: str, target: str, migration: int | None, actor: str, reason: str, accept: str | None
) -> dict[str, Any]:
    """Promote the latest result of an adapter on a target, or that of one migration.

    Raises:
        RecordNotFound: there is no such base or result.
        RecordConflict: its verdict does not allow it and was not accepted by name.
    """
    with open_catalog().begin() as work:
        base = _target(work, target)
        results = work.results_of(adapter, base.id)
        chosen = [one for one in results if migration in (None, one.migration_id)]
        if not chosen:
            remedy = "`cross-lora status` shows what there is."
            raise RecordNotFound("a finished result", "none", f"adapter {adapter!r} on {target!r}", remedy)
        return _moved(work, work.promote(chosen[0].id, actor=actor, reason=reason, accept=accept))


def rollback_adapter(adapter: str, target: str, actor: str, reason: str) -> dict[str, Any]:
    """Return an adapter's alias on a target to the result before.

    Raises:
        RecordNotFound: there is no such base, or nothing to return to.
    """
    with open_catalog().begin() as work:
        base = _target(work, target)
        return _moved(work, work.rollback(base.id, adapter, actor=actor, reason=reason))


def _target(work: Work, name: str) -> BaseRecord:
    record = work.base_named(name)
    if record is None:
        remedy = "`cross-lora base list` shows the registered ones."
        raise RecordNotFound("a registered base", f"no base named {name!r}", "the catalog", remedy)
    return record


def _moved(work: Work, record: PromotionRecord) -> dict[str, Any]:
    return asdict(record) | {"output": work.item(record.item_id).output}
