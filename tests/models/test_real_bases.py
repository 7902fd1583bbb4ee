"""What must be true of real bases, where a folder of them is at hand (`CROSS_LORA_BASES`)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from cross_lora_core.models import BaseModel, Role, layer_groups, open_base, shared_tokens

pytestmark = pytest.mark.testbed


def real_folders() -> list[Path]:
    root = os.environ.get("CROSS_LORA_BASES")
    return sorted(path.parent for path in Path(root).glob("*/config.json")) if root else []


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[BaseModel]:
    folders = real_folders()
    if not folders:
        pytest.skip("CROSS_LORA_BASES names no folder of base models")
    cache = tmp_path_factory.mktemp("cache")
    return [open_base(folder, cache_folder=cache) for folder in folders]


def test_weights_gains_and_embeddings_are_finite_and_of_their_shape(bases: list[BaseModel]) -> None:
    for base in bases:
        for role in base.roles:
            spec = base.linear(base.layers // 2, role)
            weight = base.read_weight(spec.layer, role)
            gain, _ = base.read_gains(spec.layer, role)
            assert weight.shape == (spec.d_out, spec.d_in)
            assert torch.isfinite(weight).all()
            assert gain is None or gain.shape == (spec.d_in,)


def test_tokens_decode_to_themselves(bases: list[BaseModel]) -> None:
    for base in bases:
        tokenizer = Tokenizer.from_file(f"{base.location}/tokenizer.json")
        for surface, number in list(base.tokens().items())[::101]:
            assert tokenizer.decode([number]) == surface.decode(errors="replace")


def test_unrelated_vocabularies_share_thousands_of_tokens(bases: list[BaseModel]) -> None:
    for first in bases:
        for second in bases:
            a, b = shared_tokens(first, second)
            assert len(a) == len(b) == 4096
            assert first.read_embedding(a).shape == (4096, first.d_model)


def test_groups_stay_under_their_limit(bases: list[BaseModel]) -> None:
    for base in bases:
        groups = layer_groups(base, rank=320)
        assert groups[-1].last == base.layers - 1
        assert base.linear(groups[-1].last, Role.q).d_in == base.d_model


def test_digests_differ_and_are_repeatable(bases: list[BaseModel]) -> None:
    digests = [base.digest for base in bases]
    assert len(set(digests)) == len(bases)
    assert digests == [pickle.loads(pickle.dumps(base)).digest for base in bases]
