"""The work on one layer group: factorize a base's weights, align two bases, project an adapter's updates.

Each function holds one weight at a time besides its result, and takes readers
instead of files, so that it knows nothing of stores and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    "Moving",
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
    """One target module's update and its measure.

    Attributes:
        update: the factors.
        measure: of them before any rounding.
    """

    update: LoraFactors
    measure: ModuleMeasure

    @property
    def is_rounded(self) -> bool:
        """Whether they are balanced and in the half precision they are published in (`rounding.py`)."""
        return self.update.lora_A.dtype.itemsize == 2


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


@dataclass(frozen=True, eq=False)
class Moving:
    """What one adapter brings to a layer group.

    Attributes:
        landings: the modules to fill.
        updates: its updates by (source layer, role).
    """

    landings: tuple[Landing, ...]
    updates: Mapping[tuple[int, Role], LoraFactors]


def project_landings(
    adapters: Sequence[Moving],
    target_linear: Callable[[int, Role], LinearSpec],
    source: Callable[[int, Role], ModuleFactors] | None,
    target: Callable[[int, Role], ModuleFactors] | None,
    alignment: Callable[[int, Role], Alignment] | None,
    spec: TransferSpec,
    maps: Callable[[int, Role], ModuleMaps] | None = None,
) -> list[dict[tuple[int, Role], Projected]]:
    """Carry each landing's update to the target (Eq. 7, factor-wise) and measure it.

    Args:
        adapters: one or several; what they share is read once for all.
        target_linear: the target's module, for its shape.
        source: factors of the source base, where the method needs them.
        target: factors of the target base, where the method needs them.
        alignment: maps between the two, where the method needs them.
        spec: the method and its settings.
        maps: maps between the responses of the two, where the method needs them.

    Returns:
        Of each adapter, in order, the landings' updates by (target layer, role).
    """
    results: list[dict[tuple[int, Role], Projected]] = [{} for _ in adapters]
    for one in dict.fromkeys(landing for adapter in adapters for landing in adapter.landings):
        key = one.target_layer, one.role
        sharing = [number for number, adapter in enumerate(adapters) if one in adapter.landings]
        updates = [adapters[number].updates[one.source_layer, one.role] for number in sharing]
        linear = target_linear(*key)
        projected = _project(
            _Module(
                one,
                (linear.d_out, linear.d_in),
                source(one.source_layer, one.role) if source else None,
                target(*key) if target else None,
                alignment(*key) if alignment else None,
                maps(*key) if maps else None,
            ),
            updates,
            spec.method,
        )
        for number, own in zip(sharing, projected, strict=True):
            results[number][key] = own
    return results


@dataclass(frozen=True, eq=False)
class _Module:
    """A module of the target with what carries updates to it; None where the method needs no such thing."""

    landing: Landing
    shape: tuple[int, int]
    source: ModuleFactors | None
    target: ModuleFactors | None
    alignment: Alignment | None
    maps: ModuleMaps | None


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

    @property
    def retained_energy(self) -> float:
        return algebra.retained_energy(self.folded, self.source.spectral, self.coordinates)


def _project(module: _Module, updates: Sequence[LoraFactors], method: Method) -> list[Projected]:
    insides = _see(updates, module.source) if module.source else [None] * len(updates)
    moved = _move(module, updates, insides, method)
    return [
        Projected(after, _measure(module, before, after, inside))
        for before, after, inside in zip(updates, moved, insides, strict=True)
    ]


def _see(updates: Sequence[LoraFactors], source: ModuleFactors) -> list[_Inside | None]:
    folded = [algebra.fold_gains(one, source.input_gain, source.output_gain) for one in updates]
    seen = algebra.together(folded, lambda one: algebra.coordinates(one, source.spectral))
    return [_Inside(source, one, coordinates) for one, coordinates in zip(folded, seen, strict=True)]


def _move(
    module: _Module, updates: Sequence[LoraFactors], insides: Sequence[_Inside | None], method: Method
) -> list[LoraFactors]:
    maps, target, alignment = module.maps, module.target, module.alignment
    if maps:
        return [carry(one, maps) for one in updates]
    if method is Method.COPY:
        return [algebra.copy(one, *module.shape) for one in updates]
    if method is Method.INTERPOLATE:
        return [algebra.interpolate(one, *module.shape) for one in updates]
    assert target is not None
    if method is Method.SUBSPACE:
        return [algebra.subspace(one, target.spectral) for one in updates]
    if method is Method.SUBSPACE_AND_NULL:
        assert module.source is not None
        ours = module.source.spectral
        return [algebra.subspace_and_null(one, ours, target.spectral) for one in updates]
    assert alignment is not None
    seen = [inside.coordinates for inside in insides if inside]
    carried = algebra.together(seen, lambda one: algebra.from_coordinates(one, target.spectral, alignment))
    return [algebra.unfold_gains(one, target.input_gain, target.output_gain) for one in carried]


def _measure(
    module: _Module, update: LoraFactors, moved: LoraFactors, inside: _Inside | None
) -> ModuleMeasure:
    landing, target = module.landing, module.target
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
