"""The two ways to the leading eigenvectors: LAPACK's for a few, torch's for all."""

from __future__ import annotations

import pytest
import torch

from cross_lora_core.algebra.eigenvectors import _of_all, largest_eigenvectors


@pytest.fixture
def symmetric() -> torch.Tensor:
    drawn = torch.randn(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn @ drawn.T


@pytest.mark.parametrize("find", [largest_eigenvectors, _of_all])
def test_they_are_orthonormal_and_lead_in_order(symmetric, find):
    values, vectors = find(symmetric.clone(), 7)
    assert vectors.shape == (40, 7)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(values, torch.linalg.eigvalsh(symmetric).flip(0)[:7])
    torch.testing.assert_close(symmetric @ vectors, vectors * values)


@pytest.mark.parametrize("find", [largest_eigenvectors, _of_all])
@pytest.mark.parametrize("spoiled", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_has_none(symmetric, find, spoiled):
    symmetric[3, 3] = spoiled
    assert find(symmetric, 7) is None
