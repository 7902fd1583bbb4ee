"""From module paths to roles, and from a family's names to those of one checkpoint.

The same weight is called `model.layers.3.…` in one file and `layers.3.…` in another,
and an adapter may put still more in front. Only containers of the text decoder may
stand there: the layers of a vision tower or an encoder are not this base's layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from cross_lora_core.errors import BaseModelError, UnknownArchitecture
from cross_lora_core.models.families import FAMILIES, Family
from cross_lora_core.models.roles import Role

__all__ = ["checkpoint_container", "count_layers", "find_role"]

CONTAINERS = frozenset(
    {"base_model", "model", "module", "_orig_mod", "language_model", "transformer", "gpt_neox", "decoder"}
)


class OfFamily(Protocol):
    """Anything that names its architecture family."""

    @property
    def family(self) -> str:
        """The `model_type`."""
        ...


def find_role(base_or_family: OfFamily | str, module_path: str) -> tuple[int, tuple[Role, ...]] | None:
    """The layer and the roles that a module path stands for, or None if it has no role.

    A fused module has several roles, in row order: `transformer.h.3.attn.c_attn` is
    `(3, (q, k, v))`. The layer is not checked against the depth of the base.

    Raises:
        UnknownArchitecture: there is no table for this family.
    """
    name = base_or_family if isinstance(base_or_family, str) else base_or_family.family
    if name not in FAMILIES:
        raise UnknownArchitecture(
            f"a family among {', '.join(FAMILIES)}", repr(name), "find_role", "Name one of these families."
        )
    family = FAMILIES[name]
    match = re.fullmatch(rf"(?P<prefix>(?:.*\.)?){family.stack}\.(?P<layer>\d+)\.(?P<path>.+)", module_path)
    if match is None or match["path"] not in family.modules or not _is_container(match["prefix"]):
        return None
    return int(match["layer"]), family.modules[match["path"]]


def checkpoint_container(family: Family, names: Iterable[str], where: str) -> str:
    """What this checkpoint puts before the names of the decoder, for example `model.` or nothing.

    Raises:
        BaseModelError: no tensor has any of the family's names; the message lists them.
    """
    known = tuple(names)
    tails = [f"{family.embedding}.weight", *(f"{family.stack}.0.{path}.weight" for path in family.modules)]
    for tail in tails:
        prefixes = [name.removesuffix(tail) for name in known if name.endswith(tail)]
        fitting = sorted((prefix for prefix in prefixes if _is_container(prefix)), key=len)
        if fitting:
            return fitting[0]
    raise BaseModelError(
        f"tensors of a {family.name} model such as {family.container}{tails[1]}",
        f"names such as {', '.join(sorted(known)[:3]) or 'none'}",
        where,
        "The weights are not those of the architecture that config.json names; download both again.",
    )


def count_layers(family: Family, container: str, names: Iterable[str]) -> int:
    """How many layers the checkpoint holds."""
    pattern = re.compile(rf"{re.escape(container)}{family.stack}\.(\d+)\.")
    found = {int(match[1]) for match in map(pattern.match, names) if match}
    return max(found, default=-1) + 1


def _is_container(prefix: str) -> bool:
    return prefix == "" or (prefix.endswith(".") and set(prefix[:-1].split(".")) <= CONTAINERS)
