"""Responses through hooks, against what the models themselves say, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import Role, open_base
from cross_lora_core.responses import (
    ProbeKind,
    layer_paths,
    pair_batches,
    probe_strings,
    respond,
    sample_strings,
    text_strings,
    token_strings,
)
from tests.support.fleets import make_adapter
from tests.support.pico_models import PICO_FAMILIES, build_pico
from tests.support.tolerances import assert_close

CPU = torch.device("cpu")
TEXTS = (
    "the cat sat on the mat in Paris",
    "été 42! the dog is in the city",
    "Paris is the city of the cat and the dog!",
)


def loaded(folder: Path) -> LoadedBase:
    return LoadedBase(folder, torch.float32, CPU)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("bases") / "llama", seed=3, layers=3)


def everything(folder: Path, model: LoadedBase, tokens):
    base = open_base(folder)
    return respond(model, tokens, modules=base.linears(), layers=layer_paths(base))


def test_the_stream_before_a_norm_is_what_attention_left(llama):
    base, model = open_base(llama), loaded(llama)
    (batch,) = pair_batches(model, model, TEXTS)
    norms = {layer: base.input_norm(layer, Role.up) for layer in (0, 2)}
    found = respond(
        model, batch.target, modules=base.linears(), layers=layer_paths(base), norms=norms
    )  # fmt: skip
    assert set(found.before) == {0, 2}
    for layer, stream in found.before.items():
        assert_close(stream, found.boundaries[layer] + found.outputs[layer, Role.o], torch.float32)


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_the_norm_before_the_feed_forward_part_is_found_in_every_family(family, tmp_path):
    folder = build_pico(family, tmp_path / "base")
    base, model = open_base(folder), loaded(folder)
    (batch,) = pair_batches(model, model, TEXTS)
    norms = {layer: base.input_norm(layer, Role.up) for layer in range(base.layers)}
    found = respond(model, batch.target, modules=base.linears(), norms=norms)
    assert all(found.before[layer].shape == (batch.positions, base.d_model) for layer in norms)


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_inputs_times_weights_are_outputs_and_boundaries_are_the_models_own(family, tmp_path):
    folder = build_pico(family, tmp_path / "base")
    base, model = open_base(folder), loaded(folder)
    (batch,) = pair_batches(model, model, TEXTS)
    found = everything(folder, model, batch.target)
    for spec in base.linears():
        key = (spec.layer, spec.role)
        x, y = found.inputs[key], found.outputs[key]
        assert x.shape == (batch.positions, spec.d_in) and y.shape == (batch.positions, spec.d_out)
        bias = y - x @ base.read_weight(*key).T
        assert_close(bias, bias[:1].expand_as(bias), torch.bfloat16)
    own = model.model(input_ids=batch.target.ids, output_hidden_states=True).hidden_states
    for number in range(base.layers):
        assert torch.equal(found.boundaries[number], own[number].reshape(-1, base.d_model)[batch.target.kept])
    assert sorted(found.boundaries) == [0, 1, 2]
    assert found.inputs[0, Role.q] is found.inputs[0, Role.v]


def test_the_last_boundary_stands_before_the_final_norm(llama):
    model = loaded(llama)
    (batch,) = pair_batches(model, model, TEXTS)
    last = everything(llama, model, batch.source).boundaries[3]
    own = model.model(input_ids=batch.source.ids, output_hidden_states=True).hidden_states[-1].detach()
    normed = own.reshape(-1, 32)[batch.source.kept]
    assert_close(model.model.model.norm(last).detach(), normed, torch.float32)
    assert float((last - normed).norm()) > 0.1 * float(normed.norm())


def test_padding_and_company_change_nothing(llama):
    model = loaded(llama)
    (together,) = pair_batches(model, model, TEXTS)
    apart = [everything(llama, model, one.source) for one in pair_batches(model, model, TEXTS, batch=1)]
    alone = torch.cat([one.boundaries[3] for one in apart])
    assert_close(everything(llama, model, together.source).boundaries[3], alone, torch.float32)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_an_adapter_that_is_on_is_seen_in_outputs_and_boundaries(family, tmp_path):
    folder = build_pico(family, tmp_path / "base")
    targets = {"phi3": ["qkv_proj"], "gpt2": ["c_attn"]}.get(family, ["q_proj", "v_proj"])
    adapter = make_adapter(folder, tmp_path / "adapter", target_modules=targets, strength=0.5)
    model = loaded(folder)
    (batch,) = pair_batches(model, model, TEXTS)
    before = everything(folder, model, batch.source)
    with model.with_adapter(adapter):
        during = everything(folder, model, batch.source)
    after = everything(folder, model, batch.source)
    assert torch.equal(before.inputs[0, Role.v], during.inputs[0, Role.v])
    assert not torch.allclose(before.outputs[0, Role.v], during.outputs[0, Role.v])
    assert torch.equal(before.boundaries[0], during.boundaries[0])
    assert not torch.allclose(before.boundaries[1], during.boundaries[1])
    assert torch.equal(before.boundaries[2], after.boundaries[2])


def test_two_tokenizers_are_paired_where_they_meet(llama, tmp_path):
    other = build_pico("gemma", tmp_path / "gemma", tokenizer="sentencepiece-like", width=40)
    ours, theirs = loaded(llama), loaded(other)
    strings = ("the cats sat on a mat",) * 3
    (batch,) = pair_batches(ours, theirs, strings, skip=1)
    assert batch.positions % 3 == 0 and batch.positions > 0
    text_of = lambda one, tokens: one.tokenizer.decode(tokens)  # noqa: E731
    width, other_width = batch.source.ids.shape[1], batch.target.ids.shape[1]
    for i, j in zip(batch.source.kept.tolist(), batch.target.kept.tolist(), strict=True):
        read = (
            batch.source.ids[i // width, : i % width + 1],
            batch.target.ids[j // other_width, : j % other_width + 1],
        )
        assert text_of(ours, read[0]) == text_of(theirs, read[1])


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_every_family_writes_strings_and_the_same_ones_again(family, tmp_path):
    model = loaded(build_pico(family, tmp_path / "base"))
    first = sample_strings(model, 5, tokens=40, batch=4, seed=1)
    assert len(first) == 5 and all(len(one) >= 16 for one in first)
    assert sample_strings(model, 5, tokens=40, batch=4, seed=1) == first
    assert sample_strings(model, 5, tokens=40, batch=4, seed=2) != first


def test_samples_follow_the_distribution_of_the_model(llama):
    """First tokens of many samples against the probabilities after the first token."""
    from cross_lora_core.responses.sampling import _draw

    model = loaded(llama)
    scores = model.model(input_ids=torch.tensor([[1]])).logits[0, -1:].detach()
    drawn = _draw(scores.expand(40_000, -1), 1.0, torch.Generator().manual_seed(0))
    found = torch.bincount(drawn[:, 0], minlength=scores.shape[1]) / len(drawn)
    assert float((found - scores[0].softmax(-1)).abs().max()) < 0.01
    cold = _draw(scores.expand(100, -1), 1e-3, torch.Generator().manual_seed(0))
    assert set(cold[:, 0].tolist()) == {int(scores.argmax())}


def test_an_adapter_changes_what_is_written(llama, tmp_path):
    model = loaded(llama)
    plain = sample_strings(model, 3, tokens=30, batch=3)
    with model.with_adapter(make_adapter(llama, tmp_path / "adapter", strength=0.5)):
        assert sample_strings(model, 3, tokens=30, batch=3) != plain
    assert sample_strings(model, 3, tokens=30, batch=3) == plain


def test_probes_of_every_kind(llama, tmp_path):
    other = open_base(build_pico("gemma", tmp_path / "gemma", tokenizer="sentencepiece-like"))
    base, model = open_base(llama), loaded(llama)
    strings = {
        kind: probe_strings(kind, 4, source=base, target=other, loaded=model, tokens=30, seed=5)
        for kind in ProbeKind
    }
    assert all(len(set(one)) == 4 for one in strings.values())
    assert strings[ProbeKind.TOKENS] == token_strings(base, other, 4, tokens=30, seed=5)
    joined, shared = "".join(strings[ProbeKind.TOKENS]), base.tokens().keys() & other.tokens().keys()
    assert all(character.encode() in shared for character in joined)
    assert strings[ProbeKind.TEXT] == text_strings(4, seed=5) != text_strings(4, seed=6)
    assert all(400 < len(one) < 2000 for one in strings[ProbeKind.TEXT])


def test_contrast_draws_what_the_adapter_makes_likelier(llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter", strength=0.5)
    model = loaded(llama)
    with model.with_adapter(adapter):
        plain = sample_strings(model, 24, tokens=30, seed=1)
        assert plain == sample_strings(model, 24, tokens=30, seed=1, contrasts=(0.0,))
        mixed = sample_strings(model, 24, tokens=30, seed=1, contrasts=(0.0, 2.0))
        gains = [
            _log_odds(model, text) for text in sample_strings(model, 24, tokens=30, seed=1, contrasts=(2.0,))
        ]
        assert sum(gains) / 24 > sum(_log_odds(model, text) for text in plain) / 24 + 0.1
    assert set(mixed) & set(plain) and set(mixed) != set(plain)


def _log_odds(model: LoadedBase, text: str) -> float:
    """Mean over tokens of log p(adapted) - log p(base)."""
    ids = torch.tensor([model.encode(text, special=True)])

    def scores() -> torch.Tensor:
        logits = model.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, ids[0, 1:, None]).mean()

    adapted = scores()
    with model.model.disable_adapter():
        return float(adapted - scores())


@pytest.mark.parametrize("last", [0, 1, 3])
def test_no_layer_above_the_last_wanted_boundary_is_run(llama, last):
    base, model = open_base(llama), loaded(llama)
    (batch,) = pair_batches(model, model, TEXTS)
    ran = []
    for number, path in enumerate(layer_paths(base)):
        model.model.get_submodule(path).register_forward_pre_hook(
            lambda *_, number=number: ran.append(number)
        )
    found = respond(model, batch.source, layers=layer_paths(base), boundaries=[last])
    assert ran == list(range(max(last, 1)))
    assert torch.equal(
        found.boundaries[last], respond(model, batch.source, layers=layer_paths(base)).boundaries[last]
    )
