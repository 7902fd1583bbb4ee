"""How adapters are trained: the paper's recipe, one with real lift, and variations of them by name.

`paper` is Table 4 of Cross-LoRA on all seven roles (its Table 5). The paper names no schedule and no warm-up;
linear decay without warm-up, the common default, is taken. At a learning rate of 1e-5 it hardly moves a
small base; `strong` is what the project's example adapters were trained with, so that there is a gap at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field

from cross_lora_core.models import BaseModel, Role
from cross_lora_core.training import LoraRecipe, TrainingRecipe

__all__ = ["NAMED_RECIPES", "Recipe", "RecipeEntry"]

_Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a trained adapter besides base and rows.

    Attributes:
        training: steps and optimiser.
        rank: of the LoRA.
        alpha: of the LoRA.
        dropout: of the LoRA.
        roles: whose weights get one; empty for all that a base has.
    """

    training: TrainingRecipe
    rank: int
    alpha: float
    dropout: float
    roles: tuple[Role, ...] = ()

    def lora(self, base: BaseModel) -> LoraRecipe:
        """The LoRA in the names a base has for its modules; the last two parts tell attention from MLP."""
        wanted = [one.module for one in base.linears() if not self.roles or one.role in self.roles]
        modules = sorted({".".join(path.rsplit(".", 2)[-2:]) for path in wanted})
        return LoraRecipe(self.rank, self.alpha, tuple(modules), self.dropout)

    def __str__(self) -> str:
        one = self.training
        where = ", ".join(self.roles) or "every projection"
        rate = f"{one.learning_rate:g} ({one.schedule}, {one.warmup_steps} warm-up steps)"
        return (
            f"{one.steps} steps of {one.batch} rows, AdamW, learning rate {rate}, "
            f"weight decay {one.weight_decay:g}, gradient norm {one.grad_norm:g}; "
            f"LoRA of rank {self.rank}, alpha {self.alpha:g}, dropout {self.dropout:g}, on {where}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, what a content key is made of."""
        return asdict(self)


NAMED_RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        TrainingRecipe(steps=600, batch=16, learning_rate=1e-5, weight_decay=0.1, warmup_steps=0),
        rank=16,
        alpha=32,
        dropout=0.1,
    ),
    "strong": Recipe(TrainingRecipe(steps=70, learning_rate=1e-3), rank=8, alpha=16, dropout=0.0),
}


class RecipeEntry(pydantic.BaseModel):
    """A recipe of an experiment file: one of `NAMED_RECIPES`, by its name or by `like`, and what differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    like: Literal["paper", "strong"] | None = None
    steps: _Positive | None = None
    batch: _Positive | None = None
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    warmup_steps: int | None = Field(None, ge=0)
    schedule: Literal["linear", "constant"] | None = None
    grad_norm: float | None = Field(None, gt=0)
    rank: _Positive | None = None
    alpha: float | None = Field(None, gt=0)
    dropout: float | None = Field(None, ge=0, lt=1)
    roles: tuple[Role, ...] | None = None

    def resolve(self, name: str, *, steps: int | None = None, seed: int = 0) -> Recipe:
        """The recipe with everything filled in.

        Args:
            name: that the file gives it.
            steps: of a task that needs its own number.
            seed: of batches, dropout and the LoRA's first factors.

        Raises:
            ValueError: neither name nor `like` is a recipe that is known.
        """
        known = NAMED_RECIPES.get(self.like or name)
        if known is None:
            raise ValueError(f"like = one of {', '.join(NAMED_RECIPES)} in a recipe of another name ({name})")
        own = self.model_dump(exclude={"like"}, exclude_none=True)
        lora = {key: own.pop(key) for key in ("rank", "alpha", "dropout", "roles") if key in own}
        own |= {"seed": seed} | ({"steps": steps} if steps else {})
        return replace(known, training=replace(known.training, **own), **lora)
