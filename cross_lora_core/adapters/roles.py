"""From an adapter's module paths to the roles of its base, shapes checked, fused modules split."""

from __future__ import annotations

from dataclasses import dataclass

from cross_lora_core.adapters.reading import Adapter, LoraModule, Unusable
from cross_lora_core.algebra import LoraFactors, select_rows
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.models import BaseModel, Role, find_role

__all__ = ["RoleUpdates", "updates_by_role"]


@dataclass(frozen=True, eq=False)
class RoleUpdates:
    """An adapter in terms of its base.

    Attributes:
        updates: by (layer, role); the slices of one fused module share lora_A.
        modules: how many modules of the adapter they come from.
        skipped: modules that have no role in this base, or are no low-rank update.
    """

    updates: dict[tuple[int, Role], LoraFactors]
    modules: int
    skipped: tuple[Unusable, ...]


def updates_by_role(adapter: Adapter, base: BaseModel) -> RoleUpdates:
    """Match every module of an adapter to its base.

    Raises:
        AdapterRefused: a module's shape or layer does not exist in this base, or nothing matches.
    """
    updates: dict[tuple[int, Role], LoraFactors] = {}
    skipped = list(adapter.unusable)
    landed = 0
    for module in adapter.modules:
        found = find_role(base, module.path)
        if found is None:
            skipped.append(Unusable(module.path, f"no projection of the {base.family} architecture"))
            continue
        landed += 1
        updates |= _split(module, found, adapter, base)
    if not updates:
        raise AdapterRefused(
            f"modules of a {base.family} base such as {base.linear(0, base.roles[0]).module}",
            f"modules such as {adapter.modules[0].path}",
            f"{adapter.location} on {base.name}",
            f"Give the base it was trained on{_named(adapter)}.",
        )
    return RoleUpdates(updates, landed, tuple(skipped))


def _split(
    module: LoraModule, found: tuple[int, tuple[Role, ...]], adapter: Adapter, base: BaseModel
) -> dict[tuple[int, Role], LoraFactors]:
    layer, roles = found
    if layer >= base.layers:
        raise _wrong_base(f"a layer below {base.layers}", f"layer {layer} at {module.path}", adapter, base)
    specs = [base.linear(layer, role) for role in roles]
    expected = (specs[0].fused_out or specs[0].d_out, specs[0].d_in)
    got = (module.update.d_out, module.update.d_in)
    if expected != got:
        shapes = f"{expected[0]}x{expected[1]} at {module.path}", f"{got[0]}x{got[1]}"
        raise _wrong_base(*shapes, adapter, base)
    if specs[0].fused_out is None:
        return {(layer, roles[0]): module.update}
    return {(layer, spec.role): select_rows(module.update, spec.row_index()) for spec in specs}


def _wrong_base(expected: str, got: str, adapter: Adapter, base: BaseModel) -> AdapterRefused:
    return AdapterRefused(
        expected,
        got,
        f"{adapter.location} on {base.name}",
        f"This is the wrong base: give the one it was trained on{_named(adapter)}.",
    )


def _named(adapter: Adapter) -> str:
    return f" ({adapter.base_name}, says its config)" if adapter.base_name else ""
