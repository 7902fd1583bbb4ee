"""The leading eigenvectors of a positive semidefinite matrix, where few of many are wanted.

Block Lanczos with full reorthogonalization (Golub and Underwood, "The block Lanczos method for
computing eigenvalues", 1977): every product with the matrix widens the space in which the
eigenvectors are looked for. The spectra of real bases decay slowly (the 320th singular value of
1536 is a fifth of the first), which is where a plain randomised SVD stalls; two and a half to four
times as many dimensions as vectors that are wanted were enough for those that were tried. Up to a
width of 3,072 the direct way (`eigenvectors.py`) is as fast.

Dimensions are added until the residuals say that nearly nothing is missed. They cost one product
each and are never dropped, so what rounding took from one is found by a later one. The start is drawn
from a fixed seed on the CPU, so that the same matrix gives the same vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.eigenvectors import largest_eigenvectors

__all__ = ["leading_basis", "missed_share", "pays"]

GOAL = 1e-6
"""Estimated share of the wanted subspace that may be missed when no more dimensions are added."""
BLOCKS = 20
"""Blocks in as many dimensions as vectors are wanted; a wider block is multiplied at a higher rate and needs
more dimensions."""
FIRST, MOST = 2.5, 8.0
"""Dimensions before the first test and at most, for each vector that is wanted."""
LEAST = 32
"""Wanted vectors for which there is room, however few they are."""
GROWTH = 1.1
"""Dimensions at the next test, times those at the last."""
DIRECT = 3072
"""Width up to which the direct way is taken on a CPU (measured: docs/scaling.md)."""
DIRECT_ON_A_GPU = 1536
"""There it takes all eigenvectors."""
BESIDE = 16
"""Columns beside the wanted ones."""
SEED = 20


def pays(width: int, count: int, device: torch.device) -> bool:
    """Whether `leading_basis` finds `count` vectors of a matrix faster than all of them are found."""
    if _is_direct(width, device):
        return count + BESIDE <= width
    return 4 * count <= width


def leading_basis(matrix: Tensor, count: int) -> Tensor | None:
    """Orthonormal columns whose span holds the eigenvectors of the largest eigenvalues.

    Args:
        matrix: [n, n], symmetric, positive semidefinite, contiguous; its memory may be used up.
        count: eigenvectors that are wanted; few enough that it `pays`.

    Returns:
        [n, count + BESIDE], Ritz vectors in descending order; or None where the iteration did not get there,
        for example because there is no gap behind the wanted ones, or an entry is not finite.
    """
    if _is_direct(len(matrix), matrix.device):
        found = largest_eigenvectors(matrix, count + BESIDE)
        return None if found is None else found[1]
    if not bool(torch.isfinite(matrix).all()):
        return None
    room = max(count, LEAST)
    space, tested = _KrylovSpace(matrix, room // BLOCKS, int(MOST * room)), FIRST * room
    while space.has_room:
        space.widen()
        if space.size < tested:
            continue
        found = space.largest(count + BESIDE)
        if found is None:
            return None
        values, inside = found
        if missed_share(space.residual(inside[:, :count]), values, count) <= GOAL:
            return space.vectors(inside)
        tested = GROWTH * space.size
    return None


def missed_share(residual: Tensor, values: Tensor, count: int) -> float:
    """Estimate of the share of a wanted invariant subspace that Ritz vectors miss.

    The mean over the wanted vectors of `(|r_i| / (value_i - last value))^2`: by Davis and Kahan the
    squared sine of the angle to what lies outside the block, whose eigenvalues are about the last
    value of the block or below.

    Args:
        residual: [n, count], `G x_i - value_i x_i`, or its coordinates in any orthonormal basis.
        values: [q], Ritz values of the whole block, descending.
        count: how many of them are wanted.
    """
    gaps = (values[:count] - values[-1]).clamp_min(torch.finfo(values.dtype).tiny)
    sines = torch.linalg.vector_norm(residual, dim=0).to(values.dtype) / gaps
    return float(sines.square().clamp_max(1.0).mean())


def _is_direct(width: int, device: torch.device) -> bool:
    return width <= (DIRECT if device.type == "cpu" else DIRECT_ON_A_GPU)


class _KrylovSpace:
    """Orthonormal vectors, and the matrix projected onto them: block tridiagonal.

    A row of `_basis` is a vector; the block behind the first `size` of them has not been multiplied yet.
    """

    def __init__(self, matrix: Tensor, block: int, most: int) -> None:
        self._matrix = matrix
        self._block, self._most = block, min(most, len(matrix) - 2 * block)
        self._basis = matrix.new_empty(self._most + 2 * block, len(matrix))
        self._projected = matrix.new_zeros(len(self._basis), len(self._basis))
        drawn = torch.randn(len(matrix), block, generator=torch.Generator().manual_seed(SEED))
        self._basis[:block] = torch.linalg.qr(drawn.to(matrix))[0].T
        self.size = 0

    @property
    def has_room(self) -> bool:
        """Whether the space is less wide than it may become."""
        return self.size < self._most

    def widen(self) -> None:
        """Multiply the last block, and find the next one: what of the images is orthogonal to all so far.

        That is taken twice, with a QR step between, so that the next block is orthogonal to rounding
        even where next to nothing is left of the images.
        """
        start, stop = self.size, self.size + self._block
        known, images = self._basis[:stop], self._matrix @ self._basis[start:stop].T
        inside = known @ images
        rest, first = torch.linalg.qr(images.addmm_(known.T, inside, alpha=-1))
        following, second = torch.linalg.qr(rest.addmm_(known.T, known @ rest, alpha=-1))
        own, coupling = inside[start:], second @ first
        self._projected[start:stop, start:stop] = (own + own.T) / 2
        ahead = slice(stop, stop + self._block)
        self._projected[ahead, start:stop] = coupling
        self._projected[start:stop, ahead] = coupling.T
        self._basis[ahead] = following.T
        self.size = stop

    def largest(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Ritz values, descending, and the coordinates of their vectors [size, count] in this space."""
        return largest_eigenvectors(self._projected[: self.size, : self.size].clone(), count)

    def residual(self, inside: Tensor) -> Tensor:
        """`G x - value x` of Ritz vectors given by their coordinates, in coordinates of the next block."""
        return self._projected[self.size :, : self.size][: self._block] @ inside

    def vectors(self, inside: Tensor) -> Tensor:
        """Ritz vectors [n, count] from their coordinates."""
        return self._basis[: self.size].T @ inside
