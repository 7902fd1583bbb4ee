"""The answer to "can this adapter be moved?", for people and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cross_lora_core.adapters.config import named_base
from cross_lora_core.adapters.reading import Adapter, read_adapter
from cross_lora_core.adapters.roles import updates_by_role
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.models import BaseModel
from cross_lora_core.storage import open_folder

__all__ = ["AdapterCheck", "check_adapter"]


@dataclass(frozen=True)
class AdapterCheck:
    """What was found.

    Attributes:
        status: `ok` (all of it can be moved), `partial` (some of it) or `refused` (none).
        reason: why not all, or a remark; empty when there is nothing to say.
        modules: modules of the adapter, those that are no low-rank update included.
        usable: how many of them can be moved.
        rank: the largest; None if refused.
        scaling: if all modules share one, else None.
        variant: `lora`, `rslora`, or `unknown` if refused.
        base: the base it was checked against, or the one its config names.
    """

    status: Literal["ok", "partial", "refused"]
    reason: str
    modules: int
    usable: int
    rank: int | None
    scaling: float | None
    variant: str
    base: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check_adapter(location: str | Path, base: BaseModel | None = None) -> AdapterCheck:
    """Check an adapter folder, here or on S3, against a base if one is given; a bad one is an answer."""
    base_name = base.name if base else named_base(open_folder(location))
    try:
        adapter = read_adapter(location)
        skipped = list(updates_by_role(adapter, base).skipped if base else adapter.unusable)
    except AdapterRefused as refusal:
        return AdapterCheck("refused", str(refusal), 0, 0, None, None, "unknown", base_name)
    total = len(adapter.modules) + len(adapter.unusable)
    scalings = {one.update.scaling for one in adapter.modules}
    return AdapterCheck(
        status="partial" if skipped else "ok",
        reason="; ".join([f"{one.path}: {one.reason}" for one in skipped] + _remarks(adapter)),
        modules=total,
        usable=total - len(skipped),
        rank=max(one.update.rank for one in adapter.modules),
        scaling=scalings.pop() if len(scalings) == 1 else None,
        variant=adapter.variant,
        base=base_name,
    )


def _remarks(adapter: Adapter) -> list[str]:
    empty = ["every update is zero: this adapter changes nothing"] if adapter.is_empty else []
    return [*empty, *adapter.notes]
