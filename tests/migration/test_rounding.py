"""Projections are kept in the precision they are published in, and the published bytes are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cross_lora_core.adapters import write_adapter
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.migration import (
    Landing,
    MigrationRequest,
    ModuleMeasure,
    Projected,
    TransferSpec,
    read_projections,
    round_projected,
    write_projections,
)
from cross_lora_core.models import BaseModel, Role, open_base
from tests.support.fleets import some_updates
from tests.support.pico_models import build_pico

FAMILIES = ("llama", "phi3", "gpt2")
"""Separate modules; joined ones; transposed ones."""


def spec_of(**options) -> TransferSpec:
    return TransferSpec.from_request(MigrationRequest(source="s", targets=["t"], **options))


def projected(base: BaseModel, rank: int = 4) -> dict[tuple[int, Role], Projected]:
    """Updates of every module, as unbalanced as projecting leaves them."""
    return {
        key: Projected(
            LoraFactors(one.lora_A * 7, one.lora_B / 300, one.scaling),
            ModuleMeasure.fitted(Landing(key[0], key[0], key[1]), one),
        )
        for key, one in some_updates(base, rank=rank).items()
    }


def written(
    base: BaseModel, folder: Path, spec: TransferSpec, one: dict[tuple[int, Role], Projected]
) -> bytes:
    """What publishing writes of projections that were stored."""
    folder.mkdir()
    write_projections(folder / "stored", one)
    updates = {key: each.update for key, each in read_projections(folder / "stored").items()}
    dtype = getattr(torch, spec.output_dtype)
    write_adapter(folder / "adapter", base, updates, rank=spec.output_rank, dtype=dtype)
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("output_rank", [None, 8, 1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_published_bytes_are_those_of_whole_projections(tmp_path, family, dtype, output_rank):
    base, spec = (
        open_base(build_pico(family, tmp_path / "base")),
        spec_of(output_dtype=dtype, output_rank=output_rank),
    )
    whole = projected(base)
    kept = round_projected(whole, base, spec)
    assert written(base, tmp_path / "rounded", spec, kept) == written(base, tmp_path / "whole", spec, whole)
    assert {key: one.measure for key, one in kept.items()} == {key: one.measure for key, one in whole.items()}


def test_what_publishing_only_rounds_is_kept_rounded(tmp_path):
    base = open_base(build_pico("phi3", tmp_path / "base"))
    kept = round_projected(projected(base), base, spec_of())
    write_projections(tmp_path / "stored", kept)
    found = read_projections(tmp_path / "stored")
    rounded = {key[1] for key, one in found.items() if one.is_rounded}
    assert rounded == {role for role in base.roles if base.linear(0, role).fused_out is None}
    assert Role.q not in rounded
    for one in found.values():
        dtype = torch.float16 if one.is_rounded else torch.float32
        assert one.update.lora_A.dtype == one.update.lora_B.dtype == dtype


@pytest.mark.parametrize("factor", [1e20, 1e-20])
def test_what_does_not_fit_is_kept_whole_and_refused_by_publishing(tmp_path, factor):
    base = open_base(build_pico("llama", tmp_path / "base"))
    odd = {
        key: Projected(LoraFactors(one.update.lora_A * factor, one.update.lora_B * factor), one.measure)
        for key, one in projected(base).items()
    }
    kept = round_projected(odd, base, spec_of())
    assert not any(one.is_rounded for one in kept.values())
    with pytest.raises(AdapterRefused, match=r"numbers within torch\.float16"):
        written(base, tmp_path / "odd", spec_of(), kept)


@pytest.mark.parametrize("method", ["copy", "effect", "probe", "refine", "interpolate"])
def test_what_a_training_may_go_on_from_stays_whole(method):
    assert spec_of(method=method).kept_dtype == "float32"
    assert spec_of(method="cross-lora").kept_dtype == "float16"
