"""Safetensors files of a layer group: factors, alignments and projections.

Tensors are named `{layer}.{role}.{part}`; numbers that belong to a module
travel in the header as JSON, so that one object holds all there is to know.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cross_lora_core.algebra import Alignment, CentredMoments, LoraFactors, SpectralFactors
from cross_lora_core.errors import ObjectCorrupted
from cross_lora_core.migration.layers import ModuleFactors, ModuleMeasure, Projected
from cross_lora_core.migration.mapped_file import MappedFile
from cross_lora_core.migration.maps import MapFit, ModuleMaps, input_site
from cross_lora_core.migration.tensor_file import write_all, write_tensors
from cross_lora_core.models import Role

__all__ = [
    "GroupFile",
    "read_alignment",
    "read_factors",
    "read_maps",
    "read_projections",
    "read_streams",
    "read_training",
    "write_alignments",
    "write_factors",
    "write_maps",
    "write_projections",
    "write_streams",
]

_Key = tuple[int, Role]


class GroupFile:
    """One stored layer group, for reading modules one at a time.

    On the CPU tensors are views of a mapping of their own: what was read of a module leaves memory with it,
    not with the whole file.

    Raises:
        ObjectCorrupted: a module that should be in the file is not.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device
        self._opened = MappedFile(path)
        self._parts: dict[str, list[str]] = defaultdict(list)
        for name in self._opened.names:
            self._parts[name.rpartition(".")[0]].append(name)
        self.numbers = _numbers(self._opened.metadata)

    def tensors(self, layer: int, role: Role) -> dict[str, Tensor]:
        """All parts of one module, by part name."""
        wanted = self._parts.get(f"{layer}.{role}")
        if not wanted:
            raise ObjectCorrupted(
                f"tensors of layer {layer}, role {role}",
                f"{len(self._parts)} other modules",
                str(self._path),
                "Delete this object and run the migration again; it is computed anew.",
            )
        found = self._opened.tensors(wanted)
        return {name.rpartition(".")[2]: tensor.to(self._device) for name, tensor in found.items()}


def _numbers(metadata: Mapping[str, str] | None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((metadata or {}).get("numbers", "{}"))
    return found


def _write(
    path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Any]], **more: Any
) -> None:
    header = {name: json.dumps(value, sort_keys=True) for name, value in {"numbers": numbers, **more}.items()}
    write_all(path, tensors, header)


def write_factors(path: Path, factors: Iterable[tuple[_Key, ModuleFactors]]) -> None:
    """Write the factors of a layer group, module by module as they come."""
    numbers: dict[str, dict[str, float]] = {}

    def parts() -> Iterator[tuple[str, Tensor]]:
        for (layer, role), one in factors:
            numbers[f"{layer}.{role}"] = {"energy": one.spectral.energy, "weight_norm": one.weight_norm}
            for part, value in _parts_of(one).items():
                if value is not None:
                    yield f"{layer}.{role}.{part}", value

    write_tensors(path, parts(), lambda: {"numbers": json.dumps(numbers, sort_keys=True)})


def _parts_of(one: ModuleFactors) -> dict[str, Tensor | None]:
    return {
        "U": one.spectral.U,
        "S": one.spectral.S,
        "Vh": one.spectral.Vh,
        "input_gain": one.input_gain,
        "output_gain": one.output_gain,
    }


def read_factors(file: GroupFile, layer: int, role: Role) -> ModuleFactors:
    """Read one module's factors."""
    parts, numbers = file.tensors(layer, role), file.numbers[f"{layer}.{role}"]
    spectral = SpectralFactors(parts["U"], parts["S"], parts["Vh"], numbers["energy"])
    return ModuleFactors(spectral, parts.get("input_gain"), parts.get("output_gain"), numbers["weight_norm"])


def write_alignments(path: Path, alignments: Iterable[tuple[_Key, Alignment]]) -> None:
    """Write the alignments of a layer group, module by module as they come."""
    tensors = (
        (f"{layer}.{role}.{part}", value)
        for (layer, role), one in alignments
        for part, value in (("output", one.output), ("input", one.input))
    )
    write_tensors(path, tensors, dict)


def read_alignment(file: GroupFile, layer: int, role: Role) -> Alignment:
    """Read one module's alignment."""
    parts = file.tensors(layer, role)
    return Alignment(output=parts["output"], input=parts["input"])


def write_maps(path: Path, maps: Mapping[_Key, ModuleMaps]) -> None:
    """Write the response maps of a layer group; roles that read the same tensor share one."""
    tensors = {f"{layer}.{role}.output": one.output for (layer, role), one in maps.items()}
    tensors |= {f"{layer}.{input_site(role)}.input": one.input for (layer, role), one in maps.items()}
    _write(path, tensors, {f"{layer}.{role}": asdict(one.fit) for (layer, role), one in maps.items()})


def read_maps(file: GroupFile, layer: int, role: Role) -> ModuleMaps:
    """Read one module's maps."""
    fit = MapFit(**file.numbers[f"{layer}.{role}"])
    reads, writes = file.tensors(layer, input_site(role)), file.tensors(layer, role)
    return ModuleMaps(reads["input"], writes["output"], fit)


def write_streams(path: Path, moments: Mapping[int, CentredMoments]) -> None:
    """Write moments of residual streams by target layer, in float32."""
    tensors = {
        f"{layer}.{name}": tensor.float()
        for layer, one in moments.items()
        for name, tensor in _parts(one).items()
    }
    numbers = {
        str(layer): {"yy": one.moments.yy, "count": one.moments.count, "weight": one.weight}
        for layer, one in moments.items()
    }
    _write(path, tensors, numbers)


def read_streams(path: Path, device: torch.device) -> dict[int, CentredMoments]:
    """Read the moments of every layer of a file."""
    found = {}
    with safe_open(path, framework="pt", device=str(device)) as opened:
        for layer, numbers in _numbers(opened.metadata()).items():
            one = CentredMoments(*(opened.get_tensor(f"{layer}.{name}") for name in ("x_origin", "y_origin")))
            one.moments.yy, one.moments.count = numbers["yy"], numbers["count"]
            one.weight = numbers["weight"]
            for name, tensor in _parts(one).items():
                tensor.copy_(opened.get_tensor(f"{layer}.{name}"))
            found[int(layer)] = one
    return found


def _parts(one: CentredMoments) -> dict[str, Tensor]:
    return {
        "x_origin": one.x_origin,
        "y_origin": one.y_origin,
        "x_sum": one.x_sum,
        "y_sum": one.y_sum,
        "xx": one.moments.xx,
        "yx": one.moments.yx,
    }


def write_projections(
    path: Path, projected: Mapping[_Key, Projected], training: Mapping[str, Any] | None = None
) -> None:
    """Write one adapter's projected updates of a layer group, scaling folded in.

    Args:
        path: of the file.
        projected: the updates; those that are not rounded are written in float32.
        training: what is to be told of how they were trained, if they were.
    """
    tensors = {}
    for (layer, role), one in projected.items():
        folded = one.update if one.is_rounded else one.update.folded()
        tensors[f"{layer}.{role}.lora_A"] = folded.lora_A
        tensors[f"{layer}.{role}.lora_B"] = folded.lora_B
    numbers = {f"{layer}.{role}": asdict(one.measure) for (layer, role), one in projected.items()}
    _write(path, tensors, numbers, **({} if training is None else {"training": training}))


def read_training(path: Path) -> dict[str, Any] | None:
    """What a projections file tells of its training; None where nothing was trained."""
    with safe_open(path, framework="pt") as opened:
        told: dict[str, Any] | None = json.loads((opened.metadata() or {}).get("training", "null"))
    return told


def read_projections(path: Path) -> dict[_Key, Projected]:
    """Read every module of a projections file."""
    result = {}
    with safe_open(path, framework="pt") as opened:
        for module, numbers in _numbers(opened.metadata()).items():
            measure = ModuleMeasure(**{**numbers, "role": Role(numbers["role"])})
            lora_A, lora_B = (opened.get_tensor(f"{module}.{part}") for part in ("lora_A", "lora_B"))
            result[measure.layer, measure.role] = Projected(LoraFactors(lora_A, lora_B), measure)
    return result
