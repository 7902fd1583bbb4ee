"""Pure tensor algebra of LoRA transfer: torch, LAPACK through SciPy and the standard library, nothing else.

    factors = factorize(weight, rank=320)                 # W ~= U diag(S) Vh, energy measured
    maps = align(source, target, input_anchor=(E_s, E_t))  # which source vector is which target vector
    moved = cross_lora(update, source, target, maps)       # U_t D (U_s^T delta V_s) D'^T V_t^T

Weights are `[d_out, d_in]` and act as `y = W x`. An update is a pair of factors
and is never multiplied out. Half precision is computed in float32; float64 stays.
Shapes that do not fit raise ValueError.
"""

from cross_lora_core.algebra.alignment import Alignment, align, polar
from cross_lora_core.algebra.baselines import copy, interpolate, random_like, zero
from cross_lora_core.algebra.centred import CentredMoments
from cross_lora_core.algebra.correlations import Correlations
from cross_lora_core.algebra.factors import LoraFactors, SpectralFactors, working_dtype
from cross_lora_core.algebra.fused import select_rows, stack_outputs
from cross_lora_core.algebra.gains import fold_gains, fold_weight, fold_weight_, unfold_gains
from cross_lora_core.algebra.matching import match_greedily
from cross_lora_core.algebra.measures import (
    cosine,
    frobenius_norm,
    inner_product,
    principal_angles,
    retained_energy,
    row_cosines,
    subspace_capture,
)
from cross_lora_core.algebra.rank import balance, rerank, singular_values, truncation_loss
from cross_lora_core.algebra.reduced_rank import reduced_rank_ridge
from cross_lora_core.algebra.ridge import Moments, RidgeChoice, choose_ridge, held_out_error, ridge_map
from cross_lora_core.algebra.svd import factorize
from cross_lora_core.algebra.together import together
from cross_lora_core.algebra.transport import (
    WidthMismatch,
    coordinates,
    cross_lora,
    from_coordinates,
    subspace,
    subspace_and_null,
)
from cross_lora_core.algebra.writers import FittedUpdate, fit_writer

__all__ = [
    "Alignment",
    "CentredMoments",
    "Correlations",
    "FittedUpdate",
    "LoraFactors",
    "Moments",
    "RidgeChoice",
    "SpectralFactors",
    "WidthMismatch",
    "align",
    "balance",
    "choose_ridge",
    "coordinates",
    "copy",
    "cosine",
    "cross_lora",
    "factorize",
    "fit_writer",
    "fold_gains",
    "fold_weight",
    "fold_weight_",
    "frobenius_norm",
    "from_coordinates",
    "held_out_error",
    "inner_product",
    "interpolate",
    "match_greedily",
    "polar",
    "principal_angles",
    "random_like",
    "reduced_rank_ridge",
    "rerank",
    "retained_energy",
    "ridge_map",
    "row_cosines",
    "select_rows",
    "singular_values",
    "stack_outputs",
    "subspace",
    "subspace_and_null",
    "subspace_capture",
    "together",
    "truncation_loss",
    "unfold_gains",
    "working_dtype",
    "zero",
]
