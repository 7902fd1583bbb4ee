"""Energy by rank against a dense oracle."""

from __future__ import annotations

import pytest
import torch

from cross_lora_core.experiments import energies_kept
from cross_lora_core.models import Role, open_base
from tests.support.pico_models import build_pico


def test_energy_is_that_of_the_best_approximation(tmp_path):
    base = open_base(build_pico("llama", tmp_path / "llama"))
    found = energies_kept(base, [4, 1000], torch.device("cpu"))
    shares = {}
    for one in base.linears():
        weight = base.read_weight(one.layer, one.role).double()
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        error = torch.linalg.matrix_norm(weight - U[:, :4] @ torch.diag(S[:4]) @ Vh[:4]) ** 2
        shares[one.layer, one.role] = 1 - float(error / torch.linalg.matrix_norm(weight) ** 2)
    assert found[4].mean == pytest.approx(sum(shares.values()) / len(shares), rel=1e-5)
    assert found[4].least == pytest.approx(min(shares.values()), rel=1e-5)
    layer, role = min(shares, key=lambda key: shares[key])
    assert found[4].least_module == f"layer {layer}, {role}"
    own = [share for (_, role), share in shares.items() if role is Role.down]
    assert found[4].roles["down"] == pytest.approx(sum(own) / len(own), rel=1e-5)
    assert found[1000].mean == pytest.approx(1.0)
