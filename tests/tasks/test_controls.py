"""The random control beside a migrated adapter: as large as what was written, truncated or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cross_lora_core import algebra
from cross_lora_core.adapters import read_adapter, updates_by_role, write_adapter
from cross_lora_core.models import open_base
from tasks.write_controls import random_control, write_control, zero_control
from tests.support.fleets import some_updates
from tests.support.oracle import dense
from tests.support.pico_models import build_pico


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "bloom"])
@pytest.mark.parametrize("rank", [None, 1])
def test_the_control_has_the_norm_of_the_update_as_written(tmp_path: Path, family: str, rank: int | None):
    base = open_base(build_pico(family, tmp_path / family))
    updates = some_updates(base, rank=6)
    write_adapter(tmp_path / "migrated", base, updates, rank=rank, dtype=torch.float32)
    write_control(tmp_path / "migrated", base, torch.float32, tmp_path / "random", random_control(0))
    write_control(tmp_path / "migrated", base, torch.float32, tmp_path / "zero", zero_control)
    written, random, zero = (
        updates_by_role(read_adapter(tmp_path / name), base).updates
        for name in ("migrated", "random", "zero")
    )
    assert set(random) == set(zero) == set(written) == set(updates)
    for key, one in written.items():
        assert random[key].rank == one.rank
        assert algebra.frobenius_norm(random[key]) == pytest.approx(algebra.frobenius_norm(one), rel=1e-4)
        assert abs(algebra.cosine(random[key], one)) < 0.6
        assert not dense(zero[key]).any()


def test_an_empty_module_stays_empty_and_a_seed_gives_the_same_control(tmp_path: Path):
    base = open_base(build_pico("llama", tmp_path / "llama"))
    updates = some_updates(base)
    key = next(iter(updates))
    updates[key] = algebra.zero(updates[key], updates[key].d_out, updates[key].d_in)
    write_adapter(tmp_path / "migrated", base, updates)
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / f"random-{number}"
        write_control(tmp_path / "migrated", base, torch.float16, folder, random_control(seed))
        found = read_adapter(folder)
        digests.append(found.digest)
        assert not dense(updates_by_role(found, base).updates[key]).any()
    assert digests[0] == digests[1] != digests[2]
