"""Adapters that were really trained, in seconds, on a pico base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.evaluation import EvaluationRow


def memorise(base: Path, folder: Path, rows: Sequence[EvaluationRow], *, steps: int = 200) -> Path:
    """Save an adapter that was trained on the rows, their end token included, until it knows them by heart."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=5e-3)
    ids, labels = _padded([_encoded(tokenizer, row) for row in rows])
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


def _encoded(tokenizer: Any, row: EvaluationRow) -> tuple[list[int], list[int]]:
    prompt = tokenizer(row.prompt).input_ids or [tokenizer.bos_token_id]
    return prompt, [*tokenizer(row.completion).input_ids, tokenizer.eos_token_id]


def _padded(pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """Ids, and labels that score completions alone, [rows, longest]."""
    ids = [torch.tensor(prompt + completion) for prompt, completion in pairs]
    labels = [torch.tensor([-100] * len(prompt) + completion) for prompt, completion in pairs]
    return pad_sequence(ids, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=-100)
