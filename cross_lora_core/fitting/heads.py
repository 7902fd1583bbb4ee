"""Whole heads matched between two bases, for the output maps of q, k and v in method `probe`.

A query matters by its products with keys only, and the other way round, so that the map which carries
changes of queries is the transpose of the one that takes the target's keys to the source's, head by head.
A value matters by what o makes of it: changes of values are carried so that they write to the stream what the
source's would. Least squares on the outputs themselves would leave out every direction that the base does not
use yet and an adapter writes to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.algebra import CentredMoments, match_greedily

__all__ = ["HeadMatch", "carry_keys", "carry_queries", "carry_values", "match_heads"]

HEAD_RIDGE = 0.01
"""Of the maps of whole heads, in units of the mean diagonal."""

Directions = tuple[CentredMoments, CentredMoments]
"""Of the source's outputs against the target's, and of the target's against the source's."""


@dataclass(frozen=True)
class HeadMatch:
    """Which head of the source each head of the target is compared with; groups that share a key stay whole.

    Attributes:
        queries: by query head of the target.
        keys: by key head of the target.
        source_queries: query heads of the source.
        source_keys: key heads of the source.
        agreement: of the scores of matched heads over pairs of positions, mean cosine.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    source_queries: int
    source_keys: int
    agreement: float


@dataclass(frozen=True, eq=False)
class _Second:
    """Second moments of one kind of heads: source with source, source with target, target with target."""

    ours: Tensor
    shared: Tensor
    theirs: Tensor

    @classmethod
    def of(cls, moments: Directions, dims: tuple[int, int]) -> _Second:
        """As [heads, d, heads, d]."""
        forward, backward = (one.about_means() for one in moments)

        def cut(matrix: Tensor, rows: int, columns: int) -> Tensor:
            return matrix.reshape(len(matrix) // rows, rows, -1, columns)

        d_s, d_t = dims
        return cls(cut(forward.xx, d_s, d_s), cut(backward.yx, d_s, d_t), cut(backward.xx, d_t, d_t))


def match_heads(queries: Directions, keys: Directions, dims: tuple[int, int]) -> HeadMatch:
    """Match heads by how alike they score pairs of positions.

    The agreement of two heads is the cosine of their scores `q . k'` over independent positions, which
    second moments give exactly: `E[(q_s . k_s')(q_t . k_t')] = <E[q_s q_t^T], E[k_s k_t^T]>`.

    Args:
        queries: moments of q's outputs, heads one after another.
        keys: of k's.
        dims: rows of a head in the source and in the target.
    """
    q, k = _Second.of(queries, dims), _Second.of(keys, dims)
    shares = len(q.ours) // len(k.ours), len(q.theirs) // len(k.theirs)
    agreement = _agreement(q, k, shares)
    groups = agreement.reshape(len(k.ours), shares[0], len(k.theirs), shares[1]).transpose(1, 2)
    inner = torch.stack([torch.stack([_assigned(group) for group in row]) for row in groups])
    key_of = _assigned(groups.gather(2, inner[:, :, None]).mean((2, 3)))
    query_of = (key_of[:, None] * shares[0] + inner[key_of, torch.arange(len(key_of))]).flatten()
    mean = agreement[query_of, torch.arange(len(query_of))].mean()
    return HeadMatch(
        tuple(query_of.tolist()), tuple(key_of.tolist()), len(q.ours), len(k.ours), float(mean)
    )  # fmt: skip


def _agreement(q: _Second, k: _Second, shares: tuple[int, int]) -> Tensor:
    """[query heads of the source, of the target]."""
    shared = k.shared.repeat_interleave(shares[0], 0).repeat_interleave(shares[1], 2)
    products = (q.shared * shared).sum((1, 3))
    ours, theirs = _own(q.ours, k.ours, shares[0]), _own(q.theirs, k.theirs, shares[1])
    return products / torch.outer(ours, theirs).clamp_min(torch.finfo(torch.float64).tiny)


def _own(queries: Tensor, keys: Tensor, share: int) -> Tensor:
    """Root mean square of the scores of each query head."""
    q, k = (one.diagonal(dim1=0, dim2=2).movedim(-1, 0) for one in (queries, keys))
    return (q * k.repeat_interleave(share, 0)).sum((1, 2)).clamp_min(0.0).sqrt()


def _assigned(scores: Tensor) -> Tensor:
    """For each column a row, each row once while they last; columns left over get their best."""
    found = scores.argmax(0)
    rows, columns = match_greedily(scores)
    found[columns] = rows
    return found


def carry_queries(keys: Directions, match: HeadMatch, dims: tuple[int, int], *, paired: bool) -> Tensor:
    """G_out of q, [query rows of the target, of the source]: from the keys that its queries meet.

    Args:
        keys: moments of k's outputs.
        match: of the heads.
        dims: rows of a head in the source and in the target.
        paired: both bases turn coordinate i with i + d / 2 by the same angles; the map keeps such pairs.
    """
    k = _Second.of(keys, dims)
    share = len(match.queries) // len(match.keys)
    found = torch.zeros(len(match.queries), dims[1], match.source_queries, dims[0]).to(k.ours)
    for theirs, ours in enumerate(match.queries):
        own = theirs // share
        found[theirs, :, ours] = _back(k, match.keys[own], own, paired=paired).T
    return found.flatten(2).flatten(0, 1)


def carry_keys(queries: Directions, match: HeadMatch, dims: tuple[int, int], *, paired: bool) -> Tensor:
    """G_out of k, [key rows of the target, of the source]: mean over the queries that meet a key.

    Args:
        queries: moments of q's outputs.
        match: of the heads.
        dims: rows of a head in the source and in the target.
        paired: as for queries.
    """
    q = _Second.of(queries, dims)
    share = len(match.queries) // len(match.keys)
    found = torch.zeros(len(match.keys), dims[1], match.source_keys, dims[0]).to(q.ours)
    for theirs, ours in enumerate(match.keys):
        group = range(theirs * share, (theirs + 1) * share)
        maps = [_back(q, match.queries[one], one, paired=paired) for one in group]
        found[theirs, :, ours] = torch.stack(maps).mean(0).T
    return found.flatten(2).flatten(0, 1)


def _back(second: _Second, ours: int, theirs: int, *, paired: bool) -> Tensor:
    """Least-squares map from a head of the target to one of the source, [d_s, d_t]."""
    square, shared = second.theirs[theirs, :, theirs], second.shared[ours, :, theirs]
    if paired:
        return _turned(square, shared)
    ridge = HEAD_RIDGE * square.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    regular = square + ridge * torch.eye(len(square)).to(square)
    solved: Tensor = torch.linalg.solve(regular, shared.T)
    return solved.T


def _turned(square: Tensor, shared: Tensor) -> Tensor:
    """The best map that turns and scales each pair (i, i + d / 2), as a complex number would."""
    half = len(square) // 2
    first, second = torch.arange(half), torch.arange(half, 2 * half)
    size = (square[first, first] + square[second, second]).clamp_min(torch.finfo(torch.float64).tiny)
    real = (shared[first, first] + shared[second, second]) / size
    imaginary = (shared[second, first] - shared[first, second]) / size
    found = torch.zeros_like(shared)
    found[first, first], found[second, second] = real, real
    found[second, first], found[first, second] = imaginary, -imaginary
    return found


def carry_values(
    weights: tuple[Tensor, Tensor],
    writes: Tensor,
    values: tuple[int, int],
    dims: tuple[int, int],
    ridge: float,
) -> tuple[Tensor, float]:
    """G_out of v, so that what o makes of changes of values is the source's, carried to the target's stream.

    `argmin ||O_t G - M O_s||^2` with a ridge, where O sums o's columns over the queries that share a value.

    Args:
        weights: of o, [d_model, query rows], in the source and in the target.
        writes: M, what carries changes that o writes, [d_model of the target, of the source].
        values: rows of v in the source and in the target.
        dims: rows of a head in the source and in the target.
        ridge: in units of the mean diagonal of `O_t^T O_t`.

    Returns:
        G, [value rows of the target, of the source], and what it leaves of `M O_s`, relative and squared.
    """
    ours, theirs = (
        _over_queries(weight.to(writes), rows, dim)
        for weight, rows, dim in zip(weights, values, dims, strict=True)
    )
    wanted, gram = writes @ ours, theirs.T @ theirs
    own = ridge * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    found: Tensor = torch.linalg.solve(gram + own * torch.eye(len(gram)).to(gram), theirs.T @ wanted)
    total = float(wanted.square().sum())
    return found, float((wanted - theirs @ found).square().sum()) / total if total > 0 else 0.0


def _over_queries(weight: Tensor, values: int, dim: int) -> Tensor:
    """O's columns summed over the query heads that share a value head, [d_model, value rows]."""
    return weight.reshape(len(weight), values // dim, -1, dim).sum(2).flatten(1)
