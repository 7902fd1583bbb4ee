"""The work on one layer group: factorize a base's weights, align two bases, project an adapter's updates.

Each function holds one weight at a time besides its result, and takes readers
instead of files, so that it knows nothing of stores and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core import algebra
from cross_lora_core.algebra import Alignment, LoraFactors, SpectralFactors
from cross_lora_core.migration.landings import Landing
from cross_lora_core.migration.maps import ModuleMaps, carry
from cross_lora_core.migration.methods import Method
from cross_lora_core.migration.spec import ANCHOR_TOKENS, FactorSpec, TransferSpec
from cross_lora_core.models import BaseModel, LinearSpec, Role, shared_tokens

__all__ = [
    "ModuleFactors",
    "ModuleMeasure",
    "Projected",
    "align_landings",
    "anchor_rows",
    "factorize_layers",
    "project_landings",
]

OUTPUT_ANCHORED = frozenset({Role.o, Role.down})
"""Roles that write to the residual stream; all others read it."""


@dataclass(frozen=True)
class ModuleFactors:
    """Truncated SVD of one base weight, with what is needed to fold and unfold norm gains.

    Attributes:
        spectral: factors of `diag(output_gain) W diag(input_gain)`.
        input_gain: [d_in], or None where the weight was not folded on that side.
        output_gain: [d_out], likewise.
        weight_norm: Frobenius norm of the weight itself.
    """

    spectral: SpectralFactors
    input_gain: Tensor | None
    output_gain: Tensor | None
    weight_norm: float


@dataclass(frozen=True)
class ModuleMeasure:
    """What happened to one module; None where the method has no such figure.

    Attributes:
        source_energy: share of the source weight's squared norm kept by its factors.
        target_energy: the same for the target weight.
        retained_energy: share of the update's squared norm inside the source factors' span.
        source_norm: Frobenius norm of the source update; None where no single one stands behind this module.
        norm: Frobenius norm of the projected update.
        relative_norm: `norm` over the norm of the target weight.
        explained: share of the wanted change of the residual stream, on probes held out of the fit.
    """

    layer: int
    role: Role
    source_layer: int
    source_energy: float | None
    target_energy: float | None
    retained_energy: float | None
    source_norm: float | None
    norm: float
    relative_norm: float | None
    explained: float | None = None

    @classmethod
    def fitted(cls, landing: Landing, update: LoraFactors, explained: float | None = None) -> ModuleMeasure:
        """Of an update that no update of the source stands behind: it was fitted or trained."""
        return cls(
            layer=landing.target_layer,
            role=landing.role,
            source_layer=landing.source_layer,
            source_energy=None,
            target_energy=None,
            retained_energy=None,
            source_norm=None,
            norm=algebra.frobenius_norm(update),
            relative_norm=None,
            explained=explained,
        )


@dataclass(frozen=True)
class Projected:
    """One target module's update and its measure."""

    update: LoraFactors
    measure: ModuleMeasure


def factorize_layers(
    base: BaseModel, layers: Iterable[int], spec: FactorSpec, device: torch.device
) -> Iterator[tuple[tuple[int, Role], ModuleFactors]]:
    """Truncated SVD (Eq. 1-2) of every weight of some layers, one after another as they are asked for."""
    for layer in layers:
        for role in base.roles:
            yield (layer, role), _factorize_module(base, layer, role, spec, device)


def _factorize_module(
    base: BaseModel, layer: int, role: Role, spec: FactorSpec, device: torch.device
) -> ModuleFactors:
    weight = base.read_weight(layer, role).to(device)
    norm = float(torch.linalg.matrix_norm(weight))
    gains = base.read_gains(layer, role) if spec.folded else (None, None)
    if spec.folded:
        algebra.fold_weight_(weight, *gains)
    return ModuleFactors(algebra.factorize(weight, spec.rank), *gains, norm)


def anchor_rows(source: BaseModel, target: BaseModel) -> tuple[Tensor, Tensor]:
    """Unit embedding rows of tokens both vocabularies contain: [n, d_s] and [n, d_t].

    Rows are scaled to unit length because every block reads the stream after
    a norm, where a token's length is gone.
    """
    ours, theirs = shared_tokens(source, target, limit=ANCHOR_TOKENS)
    rows = source.read_embedding(ours), target.read_embedding(theirs)
    return torch.nn.functional.normalize(rows[0], dim=1), torch.nn.functional.normalize(rows[1], dim=1)


def align_landings(
    landings: Iterable[Landing],
    source: Callable[[int, Role], ModuleFactors],
    target: Callable[[int, Role], ModuleFactors],
    anchor: tuple[Tensor, Tensor] | None,
) -> Iterator[tuple[tuple[int, Role], Alignment]]:
    """Orthogonal maps between the singular bases of each pair of mapped modules (Eq. 3-6), one by one."""
    for one in landings:
        yield (
            (one.target_layer, one.role),
            _align_module(
                one.role, source(one.source_layer, one.role), target(one.target_layer, one.role), anchor
            ),
        )


def _align_module(
    role: Role, source: ModuleFactors, target: ModuleFactors, anchor: tuple[Tensor, Tensor] | None
) -> Alignment:
    writes = role in OUTPUT_ANCHORED
    return algebra.align(
        source.spectral,
        target.spectral,
        input_anchor=None if writes else anchor,
        output_anchor=anchor if writes else None,
    )


def project_landings(
    landings: Iterable[Landing],
    updates: Mapping[tuple[int, Role], LoraFactors],
    target_linear: Callable[[int, Role], LinearSpec],
    source: Callable[[int, Role], ModuleFactors] | None,
    target: Callable[[int, Role], ModuleFactors] | None,
    alignment: Callable[[int, Role], Alignment] | None,
    spec: TransferSpec,
    maps: Callable[[int, Role], ModuleMaps] | None = None,
) -> dict[tuple[int, Role], Projected]:
    """Carry each landing's update to the target (Eq. 7, factor-wise) and measure it.

    Args:
        landings: the modules to fill.
        updates: the source adapter's updates by (source layer, role).
        target_linear: the target's module, for its shape.
        source: factors of the source base, where the method needs them.
        target: factors of the target base, where the method needs them.
        alignment: maps between the two, where the method needs them.
        spec: the method and its settings.
        maps: maps between the responses of the two, where the method needs them.
    """
    result = {}
    for one in landings:
        update = updates[one.source_layer, one.role]
        ours = source(one.source_layer, one.role) if source else None
        theirs = target(one.target_layer, one.role) if target else None
        pairs = alignment(one.target_layer, one.role) if alignment else None
        inside = _Inside.of(update, ours) if ours else None
        linear = target_linear(one.target_layer, one.role)
        if maps:
            moved = carry(update, maps(one.target_layer, one.role))
        else:
            moved = _move(update, (linear.d_out, linear.d_in), inside, theirs, pairs, spec.method)
        result[one.target_layer, one.role] = Projected(moved, _measure(one, update, moved, inside, theirs))
    return result


@dataclass(frozen=True, eq=False)
class _Inside:
    """An update as the source's factors see it: what its projection and its measure both need.

    Attributes:
        source: the factors.
        folded: the update in the coordinates of the normalised stream.
        coordinates: of that in the factors.
    """

    source: ModuleFactors
    folded: LoraFactors
    coordinates: LoraFactors

    @classmethod
    def of(cls, update: LoraFactors, source: ModuleFactors) -> _Inside:
        folded = algebra.fold_gains(update, source.input_gain, source.output_gain)
        return cls(source, folded, algebra.coordinates(folded, source.spectral))

    @property
    def retained_energy(self) -> float:
        return algebra.retained_energy(self.folded, self.source.spectral, self.coordinates)


def _move(
    update: LoraFactors,
    shape: tuple[int, int],
    inside: _Inside | None,
    target: ModuleFactors | None,
    alignment: Alignment | None,
    method: Method,
) -> LoraFactors:
    if method is Method.COPY:
        return algebra.copy(update, *shape)
    if method is Method.INTERPOLATE:
        return algebra.interpolate(update, *shape)
    assert target is not None
    if method is Method.SUBSPACE:
        return algebra.subspace(update, target.spectral)
    assert inside is not None
    if method is Method.SUBSPACE_AND_NULL:
        return algebra.subspace_and_null(update, inside.source.spectral, target.spectral)
    assert alignment is not None
    moved = algebra.from_coordinates(inside.coordinates, target.spectral, alignment)
    return algebra.unfold_gains(moved, target.input_gain, target.output_gain)


def _measure(
    landing: Landing,
    update: LoraFactors,
    moved: LoraFactors,
    inside: _Inside | None,
    target: ModuleFactors | None,
) -> ModuleMeasure:
    norm = algebra.frobenius_norm(moved)
    return ModuleMeasure(
        layer=landing.target_layer,
        role=landing.role,
        source_layer=landing.source_layer,
        source_energy=inside.source.spectral.energy if inside else None,
        target_energy=target.spectral.energy if target else None,
        retained_energy=inside.retained_energy if inside else None,
        source_norm=algebra.frobenius_norm(update),
        norm=norm,
        relative_norm=norm / target.weight_norm if target and target.weight_norm > 0 else None,
    )
