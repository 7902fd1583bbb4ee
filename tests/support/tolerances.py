"""How exactly results must agree, by dtype; relative to the norm of what is compared."""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
ORTHONORMAL = 2e-5


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.float64) -> None:
    """Frobenius distance relative to the expected norm (absolute where that is zero)."""
    found, expected = found.double(), expected.double()
    assert found.shape == expected.shape, (found.shape, expected.shape)
    distance = float((found - expected).norm())
    scale = max(float(expected.norm()), 1e-3)
    assert distance <= RELATIVE[dtype] * scale, f"distance {distance:.3g} at norm {scale:.3g}"
