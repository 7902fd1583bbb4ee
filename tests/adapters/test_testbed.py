"""Real adapters found in the world, each with what must be said of it."""

from __future__ import annotations

import pytest

from cross_lora_core.adapters import check_adapter
from cross_lora_core.models import open_base
from tests.support.testbed import TESTBED, needs_testbed, real_base

pytestmark = [pytest.mark.testbed, needs_testbed]

EXPECTED = {
    "bert-modules-to-save": ("partial", 25, 24, 8, 4.0, "classifier: a fully trained layer"),
    "gemma-2b-nonfinite": ("refused", 0, 0, None, None, "NaN or infinity in 72 of 72 tensors"),
    "gemma-3-270m-it-work": ("ok", 36, 36, 8, 4.0, ""),
    "gemma-3-270m-ner-augmented": ("ok", 36, 36, 16, 2.0, ""),
    "gemma-3-270m-ner-balanced": ("ok", 36, 36, 8, 2.0, ""),
    "gpt2-conv1d": ("ok", 12, 12, 8, 2.0, ""),
    "gpt2-prompt-tuning": ("refused", 0, 0, None, None, "peft_type PROMPT_TUNING"),
    "llama-3.2-1b-qv": ("ok", 32, 32, 8, 2.0, ""),
    "open-calm-1b-fused-qkv": ("ok", 24, 24, 1, 32.0, ""),
    "opt-125m-bf16": ("ok", 24, 24, 16, 2.0, ""),
    "qwen2.5-0.5b-math-latex": ("ok", 48, 48, 8, 2.0, ""),
    "qwen2.5-vl-truncated": ("refused", 0, 0, None, None, "a whole safetensors file"),
}


def test_every_folder_has_an_expected_outcome():
    assert {path.name for path in (TESTBED / "adapters").iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_outcome(name):
    status, modules, usable, rank, scaling, words = EXPECTED[name]
    found = check_adapter(TESTBED / "adapters" / name)
    assert (found.status, found.modules, found.usable) == (status, modules, usable)
    assert (found.rank, found.scaling) == (rank, scaling)
    assert words in found.reason
    assert found.base is not None


def test_on_its_real_base():
    base = open_base(real_base("gemma-3-270m"))
    for name in ("gemma-3-270m-ner-balanced", "gemma-3-270m-it-work"):
        assert check_adapter(TESTBED / "adapters" / name, base).status == "ok"
    refused = check_adapter(TESTBED / "adapters" / "llama-3.2-1b-qv", base)
    assert refused.status == "refused"
    assert "2048" in refused.reason
