"""Every role table against what transformers computes with the same weights.

None of these tests knows a layout: each changes what a role should be, and looks at
what the model then does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cross_lora_core.models import FAMILIES, BaseModel, LinearSpec, Role, open_base
from tests.models.conftest import PicoFactory
from tests.support.pico_models import PICO_FAMILIES

POSITIONS = 4


@dataclass(frozen=True)
class Case:
    family: str
    overrides: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __str__(self) -> str:
        return self.label or self.family


GEMMA3_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 328,
    "query_pre_attn_scalar": 16,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
CASES = [Case(family) for family in PICO_FAMILIES] + [
    Case("smollm3"),
    Case("gemma3", {"text_config": GEMMA3_TEXT, "vision_config": VISION, "mm_tokens_per_image": 4}),
    Case("falcon", {"num_ln_in_parallel_attn": 1}, "falcon-new-one-norm"),
    Case("falcon", {"new_decoder_architecture": False, "num_kv_heads": None}, "falcon-multi-query"),
    Case(
        "falcon",
        {
            "new_decoder_architecture": False,
            "multi_query": False,
            "num_kv_heads": 4,
            "parallel_attn": False,
            "alibi": True,
        },
        "falcon-rw",
    ),
    Case("gpt_neox", {"use_parallel_residual": False}, "gpt_neox-sequential"),
    Case("llama", {"num_key_value_heads": 4, "attention_bias": True}, "llama-all-heads-bias"),
    Case("phi3", {"num_key_value_heads": 1}, "phi3-one-key"),
    Case("opt", {"do_layer_norm_before": False}, "opt-norm-after"),
    Case("opt", {"layer_norm_elementwise_affine": False}, "opt-plain-norm"),
    Case("gpt2", {"n_inner": 40}, "gpt2-own-ffn"),
]


@dataclass
class Pair:
    """A base as this library reads it and as transformers runs it."""

    base: BaseModel
    model: nn.Module
    ids: Tensor

    def logits(self) -> Tensor:
        with torch.no_grad():
            return self.model(self.ids, use_cache=False).logits

    def module(self, spec: LinearSpec) -> nn.Module:
        return self.model.get_submodule(spec.module)

    def input_of(self, spec: LinearSpec) -> Tensor:
        """What the module of `spec` receives, [positions, d_in]."""
        seen: list[Tensor] = []
        hook = self.module(spec).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        self.logits()
        hook.remove()
        return seen[0].reshape(-1, spec.d_in)

    def shift_output(self, spec: LinearSpec, rows: Tensor, position: int | None = None) -> Any:
        """Add a constant to some output rows of a module, at one position or at all."""
        chosen = slice(None) if position is None else slice(position, position + 1)

        def shift(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            flat = changed.reshape(-1, output.shape[-1])
            flat[chosen, rows] += 1.5
            return flat.reshape(output.shape)

        return self.module(spec).register_forward_hook(shift)


@pytest.fixture(scope="module", params=CASES, ids=str)
def pair(request: pytest.FixtureRequest, pico: PicoFactory) -> Pair:
    from transformers import AutoModelForCausalLM

    folder = pico(request.param.family, overrides=request.param.overrides)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return Pair(open_base(folder), model.eval(), torch.tensor([[5, 17, 42, 99]]))


def test_every_layer_and_role_has_a_module_of_the_causal_lm_class(pair: Pair) -> None:
    specs = pair.base.linears()
    assert len(specs) == 2 * len(pair.base.roles)
    assert {type(pair.module(spec)).__name__ for spec in specs} <= {"Linear", "Conv1D", "FalconLinear"}
    assert set(Role) - set(pair.base.roles) in (set(), {Role.gate})


def test_the_read_weight_is_what_the_module_computes(pair: Pair) -> None:
    for spec in pair.base.linears():
        x = torch.randn(3, spec.d_in, generator=torch.Generator().manual_seed(1))
        module = pair.module(spec)
        with torch.no_grad():
            computed = (module(x) - module(torch.zeros_like(x)))[:, spec.row_index()]
        weight = pair.base.read_weight(spec.layer, spec.role)
        assert weight.shape == (spec.d_out, spec.d_in)
        assert weight.is_contiguous()
        torch.testing.assert_close(x @ weight.T, computed, atol=1e-5, rtol=1e-5)


def test_the_roles_of_a_fused_module_share_out_all_its_rows(pair: Pair) -> None:
    for path in {spec.module for spec in pair.base.linears()}:
        specs = [spec for spec in pair.base.linears() if spec.module == path]
        rows = torch.cat([spec.row_index() for spec in specs])
        assert rows.sort().values.tolist() == list(range(specs[0].fused_out or specs[0].d_out))
        assert all((spec.row_ranges is None) == (spec.fused_out is None) for spec in specs)


@pytest.mark.parametrize("position", [0, 1])
def test_query_key_and_value_reach_the_positions_that_causal_attention_lets_them(
    pair: Pair, position: int
) -> None:
    """A query moved at p is felt at p, a key later too, a value even where attention has no choice."""
    later = set(range(position, POSITIONS))
    expected = {
        Role.q: {position} - {0},
        Role.k: later - {0},
        Role.v: later,
    }
    for role, felt in expected.items():
        spec = pair.base.linear(0, role)
        changed = changed_attention(pair, spec, spec.row_index(), position)
        assert set(changed.any(dim=1).nonzero().flatten().tolist()) == felt, role


def test_heads_are_in_the_order_in_which_attention_concatenates_them(pair: Pair) -> None:
    q, k, v = (pair.base.linear(0, role) for role in (Role.q, Role.k, Role.v))
    heads, groups = (4, k.d_out * 4 // q.d_out)
    head_dim = q.d_out // heads
    for head in range(heads):
        moved = changed_attention(pair, q, q.row_index().view(heads, head_dim)[head], 1)
        assert touched_heads(moved, head_dim) == {head}
    for group in range(groups):
        served = set(range(group * heads // groups, (group + 1) * heads // groups))
        for spec in (k, v):
            moved = changed_attention(pair, spec, spec.row_index().view(groups, head_dim)[group], 1)
            assert touched_heads(moved, head_dim) == served, spec.role


def test_a_value_row_feeds_the_column_of_o_with_its_number(pair: Pair) -> None:
    v = pair.base.linear(0, Role.v)
    head_dim = pair.base.linear(0, Role.q).d_out // 4
    for row in (0, 1, v.d_out - 1):
        moved = changed_attention(pair, v, v.row_index()[row : row + 1], 0)
        assert {int(column) % head_dim for column in moved.any(dim=0).nonzero()} == {row % head_dim}


def test_up_feeds_down_neuron_by_neuron(pair: Pair) -> None:
    up, down = pair.base.linear(0, Role.up), pair.base.linear(0, Role.down)
    before = pair.input_of(down)
    for neuron in (0, 1, up.d_out - 1):
        hook = pair.shift_output(up, up.row_index()[neuron : neuron + 1])
        moved = pair.input_of(down) != before
        hook.remove()
        assert moved.any(dim=0).nonzero().flatten().tolist() == [neuron]


def test_down_reads_something_linear_in_up_and_not_in_gate(pair: Pair) -> None:
    if Role.gate not in pair.base.roles:
        pytest.skip("this family has no gate")
    down, once = pair.base.linear(0, Role.down), {}
    before = pair.input_of(down)
    for role in (Role.gate, Role.up):
        once[role] = scaled_input(pair, pair.base.linear(0, role), 2.0)
    torch.testing.assert_close(once[Role.up], 2 * before)
    assert not torch.allclose(once[Role.gate], 2 * before, rtol=1e-2)


def test_input_gains_folded_into_the_weights_leave_the_logits_unchanged(pair: Pair) -> None:
    before = pair.logits()
    saved = {name: value.clone() for name, value in pair.model.state_dict().items()}
    folded = fold_input_gains(pair)
    after = pair.logits()
    for gain, norm, offset in folded:
        with torch.no_grad():
            norm.weight.copy_(gain - offset)
    unfolded = pair.logits()
    pair.model.load_state_dict(saved)
    torch.testing.assert_close(after, before, atol=2e-4, rtol=2e-4)
    assert bool(folded) != torch.allclose(unfolded, before, atol=1e-2)


def test_output_gains_multiply_the_normalised_output(pair: Pair) -> None:
    table = FAMILIES[pair.base.family]
    for role in pair.base.roles:
        spec = pair.base.linear(1, role)
        gain = pair.base.read_gains(1, role)[1]
        assert (gain is not None) == (role in table.output_norms)
        if gain is not None:
            output, normed = output_and_norm(pair, spec, table.output_norms[role])
            flat = output / output.square().mean(dim=-1, keepdim=True).add(1e-6).sqrt()
            torch.testing.assert_close(normed, flat * gain)


def test_post_norm_families_are_the_gemmas_from_the_second_on() -> None:
    assert {name for name, table in FAMILIES.items() if table.output_norms} == {
        "gemma2",
        "gemma3",
        "gemma3_text",
    }


def test_the_embedding_rows_are_those_of_the_model(pair: Pair) -> None:
    ids = [7, 300, 7, 0, 8]
    expected = pair.model.get_input_embeddings().weight[ids]
    assert torch.equal(pair.base.read_embedding(ids), expected)
    assert pair.base.read_embedding([]).shape == (0, pair.base.d_model)


def test_every_table_is_tested() -> None:
    assert {case.family for case in CASES} == set(FAMILIES)


def changed_attention(pair: Pair, spec: LinearSpec, rows: Tensor, position: int) -> Tensor:
    """Which entries of the input of o, [positions, columns], move with these rows at this position."""
    o = pair.base.linear(spec.layer, Role.o)
    before = pair.input_of(o)
    hook = pair.shift_output(spec, rows, position)
    moved = (pair.input_of(o) - before).abs() > 1e-6
    hook.remove()
    return moved


def touched_heads(moved: Tensor, head_dim: int) -> set[int]:
    return {int(column) // head_dim for column in moved.any(dim=0).nonzero()}


def scaled_input(pair: Pair, spec: LinearSpec, factor: float) -> Tensor:
    """Input of down when the output rows of `spec` are multiplied by a factor."""

    def scale(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[..., spec.row_index()] *= factor
        return output

    hook = pair.module(spec).register_forward_hook(scale)
    seen = pair.input_of(pair.base.linear(spec.layer, Role.down))
    hook.remove()
    return seen


def fold_input_gains(pair: Pair) -> list[tuple[Tensor, nn.Module, float]]:
    """Write W diag(gain) into the model and make the norms neutral; what is needed to undo the norms."""
    norms: dict[str, tuple[Tensor, nn.Module, float]] = {}
    for spec in pair.base.linears():
        gain, _ = pair.base.read_gains(spec.layer, spec.role)
        if gain is None:
            continue
        write_rows(pair.module(spec), spec, pair.base.read_weight(spec.layer, spec.role) * gain)
        table = pair.base._table
        stack = spec.module.split(f"{table.stack}.{spec.layer}.")[0] + f"{table.stack}.{spec.layer}"
        path = f"{stack}.{table.input_norms[spec.role]}"
        norms[path] = (gain, pair.model.get_submodule(path), table.gain_offset)
    for gain, norm, offset in norms.values():
        neutralise(norm, gain, offset)
    return list(norms.values())


def write_rows(module: nn.Module, spec: LinearSpec, weight: Tensor) -> None:
    with torch.no_grad():
        if spec.transposed:
            module.weight[:, spec.row_index()] = weight.T
        else:
            module.weight[spec.row_index()] = weight


def neutralise(norm: nn.Module, gain: Tensor, offset: float) -> None:
    """Gain 1; a bias was added after the gain, so it is divided by it."""
    with torch.no_grad():
        norm.weight.fill_(1.0 - offset)
        if getattr(norm, "bias", None) is not None:
            norm.bias.div_(gain)


def output_and_norm(pair: Pair, spec: LinearSpec, norm: str) -> tuple[Tensor, Tensor]:
    layer = spec.module.split(".self_attn.")[0].split(".mlp.")[0]
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: seen.__setitem__(name, output.detach())

    hooks = [
        pair.module(spec).register_forward_hook(keep("output")),
        pair.model.get_submodule(f"{layer}.{norm}").register_forward_hook(keep("normed")),
    ]
    pair.logits()
    for hook in hooks:
        hook.remove()
    return seen["output"], seen["normed"]


def test_no_role_table_needs_transformers(pico: PicoFactory) -> None:
    """`models` reads files; a worker that only projects need not import transformers."""
    import subprocess
    import sys

    code = (
        "import sys; from cross_lora_core.models import open_base; "
        "open_base(sys.argv[1]).read_weight(0, 'q'); assert 'transformers' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(pico("llama"))], check=True, cwd=root, timeout=120)
