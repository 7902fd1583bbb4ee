"""Promote a result under an adapter's name, or return to the one before; both are audited.

The catalog's row and the pointer object that servers read move together: the
pointer is written while the catalog is this writer's alone, before the row
becomes visible. If the process dies between the two, `settle_aliases` brings
the pointer back to what the catalog says.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cross_lora_core.catalog import PromotionRecord, Work
from cross_lora_core.errors import ObjectCorrupted, RecordNotFound
from cross_lora_core.migration import Alias, alias_key, read_alias
from tasks.runtime import open_catalog, open_stored

__all__ = ["promote_adapter", "rollback_adapter", "settle_aliases"]


def promote_adapter(
    adapter: str, target: str, migration: int | None, actor: str, reason: str, accept: str | None
) -> dict[str, Any]:
    """Promote the latest result of an adapter on a target, or that of one migration.

    Raises:
        RecordNotFound: there is no such base or result.
        RecordConflict: its verdict does not allow it and was not accepted by name.
    """
    with open_catalog().begin() as work:
        base = work.registered_base(target)
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
        base = work.registered_base(target)
        return _moved(work, work.rollback(base.id, adapter, actor=actor, reason=reason))


def settle_aliases() -> list[str]:
    """Write every pointer that differs from the catalog anew; returns the keys of those that did."""
    with open_catalog().begin() as work:
        moves = work.current_promotions()
        aliases = {_key(work, one): _alias(work, one) for one in moves}
    differing = [key for key, alias in aliases.items() if _pointed(key) != alias]
    for key in differing:
        _settle(aliases[key], key)
    return differing


def _settle(alias: Alias, key: str) -> None:
    """Only if the row is still the current one: another writer may have moved on meanwhile."""
    with open_catalog().begin() as work:
        work.hold()
        current = work.current_promotion(work.registered_base(alias.target_base).id, alias.adapter)
        if current is not None and current.id == alias.promotion:
            open_stored().put_pointer(key, alias.to_bytes())


def _pointed(key: str) -> Alias | None:
    data = open_stored().read_pointer(key)
    try:
        return None if data is None else read_alias(data, key)
    except ObjectCorrupted:
        return None


def _moved(work: Work, record: PromotionRecord) -> dict[str, Any]:
    alias, key = _alias(work, record), _key(work, record)
    open_stored().put_pointer(key, alias.to_bytes())
    return asdict(record) | {"output": alias.output, "lora_name": alias.lora_name, "pointer": key}


def _key(work: Work, record: PromotionRecord) -> str:
    return alias_key(work.base(record.target_base_id).name, record.adapter_name)


def _alias(work: Work, record: PromotionRecord) -> Alias:
    item = work.item(record.item_id)
    return Alias(
        adapter=record.adapter_name,
        target_base=work.base(record.target_base_id).name,
        output=item.output or "",
        sha256=item.output_sha256 or "",
        verdict=item.verdict or "",
        promotion=record.id,
        action=record.action,
        actor=record.actor,
        reason=record.reason,
        promoted_at=record.created_at.isoformat(timespec="seconds"),
    )
