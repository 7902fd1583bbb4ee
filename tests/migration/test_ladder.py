"""Which methods `auto` tries, and whether bases are related."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from safetensors.torch import load_file, save_file

from cross_lora_core.migration import (
    DATA_FREE,
    TRAINING_OFF,
    BaseSimilarity,
    Ladder,
    Method,
    MigrationRequest,
    PairFacts,
    TransferSpec,
    base_similarity,
    build_ladder,
    possible_rungs,
)
from cross_lora_core.models import open_base
from tests.support.pico_models import build_pico
from tests.support.planted import rewritten

FACTS = {
    "same_weights": False,
    "equal_shapes": True,
    "similarity": BaseSimilarity(0.9, 24),
    "tokenizers": True,
    "evaluation": True,
}


def ladder(method: str = "auto", *, refine: bool = True, **changes) -> Ladder:
    request = MigrationRequest(source="s", targets=["t"], method=method, refine=refine)
    spec = TransferSpec.from_request(request)
    return build_ladder(spec, PairFacts(**(FACTS | changes)))


def methods(found: Ladder) -> list[str]:
    return [str(one.method) for one in found.rungs]


def test_a_method_asked_for_by_name_is_the_only_rung():
    assert methods(ladder("interpolate")) == ["interpolate"]
    assert ladder("interpolate").left_out == ()


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("method", ["auto", "refine", "copy"])
def test_what_a_request_may_come_to_is_known_without_its_bases(method, refine):
    facts = product([False, True], [False, True], [None, FACTS["similarity"]], [False, True], [False, True])
    reached = {
        rung
        for values in facts
        for rung in ladder(method, refine=refine, **dict(zip(FACTS, values, strict=True))).rungs
    }
    request = MigrationRequest(source="s", targets=["t"], method=method, refine=refine)
    assert set(possible_rungs(TransferSpec.from_request(request))) == reached


def test_related_bases_of_equal_shape_begin_with_a_copy():
    assert methods(ladder()) == ["copy", *map(str, DATA_FREE), "refine"]
    assert ladder().left_out == ()
    assert all(rung.method is not Method.AUTO for rung in ladder().rungs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"equal_shapes": False}, "other shapes"),
        ({"similarity": BaseSimilarity(0.02, 24)}, "similarity 0.02"),
        ({"similarity": None}, "similarity unknown"),
    ],
)
def test_a_copy_is_left_out_with_the_reason(changes, reason):
    found = ladder(**changes)
    assert methods(found) == [*map(str, DATA_FREE), "refine"]
    (left,) = found.left_out
    assert left.method is Method.COPY
    assert reason in left.reason


def test_on_the_same_weights_nothing_but_the_copy_is_tried():
    found = ladder(same_weights=True, similarity=None)
    assert methods(found) == ["copy"]
    assert {one.method for one in found.left_out} == {*DATA_FREE, Method.REFINE}
    assert all("a copy is exact" in one.reason for one in found.left_out)


def test_without_an_evaluation_file_the_first_rung_is_the_only_one():
    found = ladder(evaluation=False)
    assert methods(found) == ["copy"]
    assert all("nothing to choose by" in one.reason for one in found.left_out)
    assert methods(ladder(evaluation=False, equal_shapes=False)) == [str(DATA_FREE[0])]


def test_without_a_tokenizer_no_tokens_are_shared():
    found = ladder(tokenizers=False)
    assert "cross-lora" not in methods(found)
    assert any("no shared tokens" in one.reason for one in found.left_out)


def test_what_trains_is_tried_only_where_it_is_allowed():
    found = ladder(refine=False)
    assert methods(found) == ["copy", *map(str, DATA_FREE)]
    assert [(one.method, one.reason) for one in found.left_out] == [(Method.REFINE, TRAINING_OFF)]
    assert methods(ladder("refine", refine=False)) == ["refine"]  # asking for it by name allows it


def test_training_goes_on_from_a_copy_where_a_copy_is_tried():
    for found in (ladder(), ladder("refine")):
        (training,) = [one for one in found.rungs if one.method is Method.REFINE]
        assert training.start.method is Method.COPY
        assert not training.needs.streams
    copy, *others = ladder().rungs
    assert ladder().rungs[-1].start == copy
    assert all(one.begins_with is Method.EFFECT for one in (copy, *others[:-1]))
    apart = ladder(similarity=BaseSimilarity(0.02, 24)).rungs
    assert apart[-1].start == apart[0]
    assert apart[0].method is Method.EFFECT
    assert apart[-1].digest != ladder().rungs[-1].digest


# similarity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    heads = {"num_key_value_heads": 4}
    return build_pico("llama", tmp_path_factory.mktemp("bases") / "one", layers=4, overrides=heads)


def noisy(folder, target, size: float):
    """A copy whose every weight has noise of `size` times its own standard deviation added."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    drawn = torch.Generator().manual_seed(1)
    tensors = {
        name: one + size * one.std() * torch.randn(one.shape, generator=drawn)
        for name, one in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(("size", "related"), [(0.0, True), (0.3, True), (1.0, True), (3.0, False)])
def test_noise_lowers_the_similarity_as_calculated(folder, tmp_path, size, related):
    found = base_similarity(open_base(folder), open_base(noisy(folder, tmp_path / "noisy", size)))
    assert found.cosine == pytest.approx(1 / (1 + size**2) ** 0.5, abs=0.03)
    assert found.related is related
    assert found.modules == 24


def test_other_seeds_and_other_bases_of_the_same_function_are_not_related(folder, tmp_path):
    source = open_base(folder)
    apart = open_base(
        build_pico("llama", tmp_path / "apart", layers=4, seed=3, overrides={"num_key_value_heads": 4})
    )
    turned = open_base(rewritten(folder, tmp_path / "turned"))
    for other in (apart, turned):
        found = base_similarity(source, other)
        assert abs(found.cosine) < 0.1
        assert not found.related


def test_without_equal_shapes_there_is_nothing_to_compare(folder, tmp_path):
    wider = open_base(build_pico("gemma3_text", tmp_path / "wider", width=48))
    assert base_similarity(open_base(folder), wider) == BaseSimilarity(0.0, 0)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bloom", "phi3", "falcon"])
def test_fused_and_transposed_weights_are_compared_row_by_row(tmp_path, family):
    base = open_base(build_pico(family, tmp_path / family))
    for layer, role in ((0, base.roles[0]), (1, base.roles[1])):
        rows = base.read_rows(layer, role, 3, 11)
        assert torch.equal(rows, base.read_weight(layer, role)[3:11])
    assert base_similarity(base, base).cosine == pytest.approx(1.0)


def test_only_a_small_part_of_a_base_is_read(tmp_path, monkeypatch):
    from cross_lora_core.models.checkpoint import Checkpoint

    base = open_base(build_pico("llama", tmp_path / "wide", width=512, layers=8))
    read, real = [], Checkpoint.read

    def counting(self, *arguments):
        found = real(self, *arguments)
        read.append(found.numel())
        return found

    monkeypatch.setattr(Checkpoint, "read", counting)
    base_similarity(base, base)
    weights = sum(one.d_out * one.d_in for one in base.linears())
    assert sum(read) < 0.2 * weights
