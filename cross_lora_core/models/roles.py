"""What a linear module of a transformer does, independent of what its family calls it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

__all__ = ["LinearSpec", "Role"]


class Role(StrEnum):
    """The job of a weight inside a layer; `q` reads the residual stream, `o` writes to it, and so on."""

    q = "q"
    k = "k"
    v = "v"
    o = "o"
    gate = "gate"
    up = "up"
    down = "down"


@dataclass(frozen=True)
class LinearSpec:
    """Where the weight of one (layer, role) lives, as y = W x with W [d_out, d_in].

    Attributes:
        layer: index from 0.
        role: the job of this weight.
        module: path of the module in the family's causal-LM class, without `.weight`;
            what PEFT puts in its keys after `base_model.model.`.
        tensor: name of the weight in the checkpoint; its prefix may differ from `module`.
        d_out: rows of W for this role alone (the slice, where the module is fused).
        d_in: columns of W.
        transposed: the checkpoint stores [d_in, d_out] (Conv1D of GPT-2).
        row_ranges: half-open ranges of the fused d_out axis that belong to this role, in
            order; None where the module serves this role alone.
        fused_out: d_out of the whole fused module, or None.
    """

    layer: int
    role: Role
    module: str
    tensor: str
    d_out: int
    d_in: int
    transposed: bool = False
    row_ranges: tuple[tuple[int, int], ...] | None = None
    fused_out: int | None = None

    def row_index(self) -> Tensor:
        """Rows of the module's d_out axis that belong to this role, int64 [d_out]."""
        ranges = self.row_ranges or ((0, self.d_out),)
        return torch.cat([torch.arange(start, stop) for start, stop in ranges])
