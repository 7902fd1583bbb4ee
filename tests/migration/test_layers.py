"""Factorize, align and project on bases, with a base rewritten in another basis as the whole-model truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.adapters import read_adapter, updates_by_role, write_adapter
from cross_lora_core.errors import ObjectCorrupted
from cross_lora_core.migration import (
    FactorSpec,
    GroupFile,
    Landing,
    align_landings,
    anchor_rows,
    factorize_layers,
    read_alignment,
    read_factors,
    read_projections,
    write_alignments,
    write_factors,
    write_projections,
)
from cross_lora_core.models import Role, open_base
from tests.support.fleets import make_adapter
from tests.support.oracle import dense
from tests.support.pico_models import build_pico
from tests.support.planted import project, rewritten
from tests.support.tolerances import assert_close

CPU = torch.device("cpu")


def logits(folder: Path, adapter: Path | None) -> torch.Tensor:
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    ids = AutoTokenizer.from_pretrained(folder)(
        "the cat sat on the mat in Paris", return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits


def test_a_rewritten_model_gets_the_adapter_that_makes_it_answer_the_same(tmp_path):
    """The planted truth through real files and real models: the logits agree, with and without the adapter.

    Attention inputs and outputs are square here, so that nothing of the update is lost at full rank.
    """
    heads = {"num_key_value_heads": 4, "intermediate_size": 48}
    folder = build_pico("llama", tmp_path / "old", overrides={**heads, "tie_word_embeddings": False})
    other = rewritten(folder, tmp_path / "new")
    assert_close(logits(other, None), logits(folder, None), torch.float32)
    adapter = make_adapter(folder, tmp_path / "adapter", strength=0.3)
    source, target = open_base(folder), open_base(other)
    updates = updates_by_role(read_adapter(adapter), source).updates
    moved = {key: one.update for key, one in project(source, target, updates).items()}
    write_adapter(tmp_path / "moved", target, moved, dtype=torch.float32)
    before, after = logits(folder, adapter), logits(other, tmp_path / "moved")
    assert float((before - logits(folder, None)).abs().max()) > 0.05
    assert_close(after - logits(other, None), before - logits(folder, None), torch.float16)


def test_files_keep_what_was_computed(tmp_path):
    source = open_base(build_pico("gemma2", tmp_path / "old"))
    target = open_base(build_pico("llama", tmp_path / "new", width=40, seed=1))
    ours = dict(factorize_layers(source, range(2), FactorSpec(6, True), CPU))
    write_factors(tmp_path / "factors", ours.items())
    file = GroupFile(tmp_path / "factors", CPU)
    for key, one in ours.items():
        again = read_factors(file, *key)
        assert torch.equal(again.spectral.U, one.spectral.U)
        assert again.spectral.energy == one.spectral.energy
        assert again.weight_norm == pytest.approx(float(source.read_weight(*key).norm()), rel=1e-5)
        assert (again.input_gain is None) == (one.input_gain is None) == (key[1] in (Role.o, Role.down))
        assert (again.output_gain is None) != (key[1] in (Role.o, Role.down))
    adapter = make_adapter(source.location, tmp_path / "a")
    updates = updates_by_role(read_adapter(adapter), source).updates
    projected = project(source, target, updates)
    write_projections(tmp_path / "projections", projected)
    for key, one in read_projections(tmp_path / "projections").items():
        assert one.measure == projected[key].measure
        assert_close(dense(one.update), dense(projected[key].update), torch.float32)
    anchor = anchor_rows(source, source)
    maps = dict(align_landings([Landing(0, 1, Role.q)], lambda *k: ours[k], lambda *k: ours[k], anchor))
    write_alignments(tmp_path / "maps", maps.items())
    assert torch.equal(
        read_alignment(GroupFile(tmp_path / "maps", CPU), 0, Role.q).input, maps[0, Role.q].input
    )


def test_a_file_without_the_module_says_so(tmp_path):
    source = open_base(build_pico("llama", tmp_path / "old"))
    write_factors(tmp_path / "factors", factorize_layers(source, [0], FactorSpec(4, False), CPU))
    with pytest.raises(ObjectCorrupted, match="layer 1, role q"):
        read_factors(GroupFile(tmp_path / "factors", CPU), 1, Role.q)


def test_plain_factors_are_of_the_weight_itself(tmp_path):
    source = open_base(build_pico("llama", tmp_path / "old"))
    one = dict(factorize_layers(source, [0], FactorSpec(320, False), CPU))[0, Role.q]
    rebuilt = (one.spectral.U * one.spectral.S) @ one.spectral.Vh
    assert_close(rebuilt, source.read_weight(0, Role.q), torch.float32)
    assert one.input_gain is None


def test_measures_are_json(tmp_path):
    source = open_base(build_pico("llama", tmp_path / "old"))
    updates = updates_by_role(read_adapter(make_adapter(source.location, tmp_path / "a")), source).updates
    write_projections(tmp_path / "p", project(source, source, updates))
    numbers = GroupFile(tmp_path / "p", CPU).numbers
    assert json.loads(json.dumps(numbers)) == numbers
    assert all(one["retained_energy"] > 0.99 for key, one in numbers.items() if key.endswith(".q"))
