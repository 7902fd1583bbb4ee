"""Eigenvectors of the largest eigenvalues of a symmetric matrix, directly.

Where few of many are wanted, LAPACK's `syevr` takes back only those from the tridiagonal
form; torch has no such routine and takes back all. On a CPU SciPy's is therefore called; it is
loaded when it is first needed, as most commands never compute an eigenvector.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["largest_eigenvectors"]


def largest_eigenvectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The largest eigenvalues, descending, and their orthonormal eigenvectors; None if LAPACK finds none.

    Args:
        matrix: [n, n], symmetric, contiguous, float32 or float64. On a CPU its memory is used up: what it
            holds afterwards means nothing.
        count: between 1 and n.

    Returns:
        [count] and [n, count], of the matrix's precision and device.
    """
    if matrix.device.type != "cpu":
        return _of_all(matrix, count)
    import scipy.linalg

    n = len(matrix)
    columns_first = matrix.numpy().T  # the same matrix, as LAPACK wants it, without a copy
    try:
        values, vectors = scipy.linalg.eigh(
            columns_first, subset_by_index=(n - count, n - 1), driver="evr", overwrite_a=True
        )
    except (scipy.linalg.LinAlgError, ValueError):  # ValueError: an entry is not finite
        return None
    return torch.from_numpy(values).flip(0), torch.from_numpy(vectors).flip(1)


def _of_all(matrix: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The same by torch, which finds all of them, where SciPy cannot go."""
    if not bool(torch.isfinite(matrix).all()):  # of some of these torch finds vectors
        return None
    values, vectors = torch.linalg.eigh(matrix)
    return values[-count:].flip(0), vectors[:, -count:].flip(1)
