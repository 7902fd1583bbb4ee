"""How adapters are trained: the paper's recipe, one with real lift, and variations of them by name.

`paper` is Table 4 of Cross-LoRA. At a learning rate of 1e-5 it hardly moves a small base; `strong` is what
the project's example adapters were trained with, so that there is a gain to carry over at all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["NAMED_RECIPES", "RecipeEntry"]

_Positive = Annotated[int, Field(ge=1)]

NAMED_RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "steps": 600,
        "batch_size": 16,
        "learning_rate": 1e-5,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "rank": 16,
        "alpha": 32,
        "dropout": 0.1,
    },
    "strong": {
        "steps": 70,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "rank": 8,
        "alpha": 16,
        "dropout": 0.0,
    },
}


class RecipeEntry(BaseModel):
    """A recipe of an experiment file: one of `NAMED_RECIPES`, by its name or by `like`, and what differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    like: Literal["paper", "strong"] | None = None
    steps: _Positive | None = None
    batch_size: _Positive | None = None
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    max_grad_norm: float | None = Field(None, gt=0)
    rank: _Positive | None = None
    alpha: float | None = Field(None, gt=0)
    dropout: float | None = Field(None, ge=0, lt=1)

    def resolve(self, name: str, steps: int | None = None) -> dict[str, Any]:
        """Every field of the recipe.

        Args:
            name: that the file gives it.
            steps: of a task that needs its own number.

        Raises:
            ValueError: neither name nor `like` is a recipe that is known.
        """
        known = NAMED_RECIPES.get(self.like or name)
        if known is None:
            raise ValueError(f"like = one of {', '.join(NAMED_RECIPES)} in recipe {name!r}")
        own = self.model_dump(exclude={"like"}, exclude_none=True)
        return known | own | ({"steps": steps} if steps else {})
