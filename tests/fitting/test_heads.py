"""Whole heads: who is matched with whom, what respects pairs of turned coordinates, what o makes of values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.algebra import CentredMoments
from cross_lora_core.fitting.heads import carry_keys, carry_queries, carry_values, match_heads
from tests.support.tolerances import assert_close

D = 4
ROWS = 600


def directions(x, y):
    forward, backward = CentredMoments(x.mean(0), y.mean(0)), CentredMoments(y.mean(0), x.mean(0))
    forward.add(x, y, torch.ones(len(x)))
    backward.add(y, x, torch.ones(len(x)))
    return forward, backward


def turning(heads: int, drawn: torch.Generator):
    """A random turn and scaling of every pair (i, i + D / 2) of every head, [heads, D, D]."""
    angle = 6.3 * torch.rand(heads, D // 2, generator=drawn)
    size = 0.5 + torch.rand(heads, D // 2, generator=drawn)
    real, imaginary = (torch.diag_embed(size * part) for part in (angle.cos(), angle.sin()))
    return torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1).double()


def planted(keys: int, share: int, seed: int):
    """Heads of a source, and the same ones in another order and in other coordinates, scores kept."""
    drawn = torch.Generator().manual_seed(seed)
    order = torch.randperm(keys, generator=drawn)
    inner = torch.stack([torch.randperm(share, generator=drawn) for _ in range(keys)])
    queries = (order[:, None] * share + inner).flatten()
    q = torch.randn(ROWS, keys * share, D, generator=drawn).double()
    k = torch.randn(ROWS, keys, D, generator=drawn).double()
    turn = turning(keys, drawn)
    other = torch.linalg.inv(turn).transpose(1, 2)
    k_t = torch.einsum("hij,nhj->nhi", turn, k[:, order])
    q_t = torch.einsum("hij,nhj->nhi", other.repeat_interleave(share, 0), q[:, queries])
    q, k, q_t, k_t = (one.flatten(1) for one in (q, k, q_t, k_t))
    return directions(q, q_t), directions(k, k_t), queries, order, (q, k, q_t, k_t)


@given(keys=st.integers(1, 4), share=st.integers(1, 3), seed=st.integers(0, 99))
def test_planted_heads_are_found_with_their_groups_and_carried_exactly(keys, share, seed):
    q, k, queries, order, (q_s, k_s, q_t, k_t) = planted(keys, share, seed)
    match = match_heads(q, k, (D, D))
    assert match.queries == tuple(queries.tolist())
    assert match.keys == tuple(order.tolist())
    assert match.agreement == pytest.approx(1.0, abs=1e-6)
    for paired in (True, False):
        rtol = 1e-6 if paired else 0.1
        G_q, G_k = carry_queries(k, match, (D, D), paired=paired), carry_keys(q, match, (D, D), paired=paired)
        assert float((q_s @ G_q.T - q_t).norm()) < rtol * float(q_t.norm())
        assert float((k_s @ G_k.T - k_t).norm()) < rtol * float(k_t.norm())


@given(seed=st.integers(0, 99))
def test_paired_maps_commute_with_turning_by_a_position(seed):
    """So that a carried query means the same at every distance."""
    drawn = torch.Generator().manual_seed(seed)
    q = [torch.randn(ROWS, 2 * D, generator=drawn).double() for _ in range(2)]
    k = [torch.randn(ROWS, D, generator=drawn).double() for _ in range(2)]
    match = match_heads(directions(*q), directions(*k), (D, D))
    G = carry_queries(directions(*k), match, (D, D), paired=True).reshape(2, D, 2, D)
    unit = turning(1, drawn)[0]
    unit = unit / unit.pow(2).sum(0).sqrt()
    for theirs, ours in enumerate(match.queries):
        block = G[theirs, :, ours]
        assert_close(unit @ block, block @ unit)


def test_heads_of_other_counts_and_sizes_all_get_a_partner():
    drawn = torch.Generator().manual_seed(0)
    q = torch.randn(ROWS, 2 * 4, generator=drawn), torch.randn(ROWS, 6 * 3, generator=drawn)
    k = torch.randn(ROWS, 1 * 4, generator=drawn), torch.randn(ROWS, 2 * 3, generator=drawn)
    match = match_heads(directions(*q), directions(*k), (4, 3))
    assert match.keys == (0, 0)
    assert len(match.queries) == 6 and set(match.queries) == {0, 1}
    assert carry_queries(directions(*k), match, (4, 3), paired=False).shape == (18, 8)
    assert carry_keys(directions(*q), match, (4, 3), paired=False).shape == (6, 4)


@given(seed=st.integers(0, 99), share=st.integers(1, 3))
def test_values_write_what_the_sources_would(seed, share):
    """However the target's values are turned inside, as long as its o turns them back."""
    drawn = torch.Generator().manual_seed(seed)
    values, width = 2 * D, 16
    turn = torch.linalg.qr(torch.randn(values, values, generator=drawn)).Q.double()
    weight = torch.randn(width, share, values, generator=drawn).double()

    def rows(one):
        """[width, share, 2, D] as o has its columns: value heads first, then the queries that share one."""
        return one.reshape(width, share, 2, D).transpose(1, 2).reshape(width, -1)

    G, left = carry_values(
        (rows(weight), rows(weight @ turn.T)), torch.eye(width).double(), (values, values), (D, D), 1e-8
    )
    assert left < 1e-9
    change = torch.randn(values, generator=drawn).double()
    wanted, got = weight.sum(1) @ change, (weight @ turn.T).sum(1) @ (G @ change)
    assert float((wanted - got).norm()) < 1e-4 * float(wanted.norm())
