"""Tiny Hugging Face bases, one per architecture family, made from a config on the fly.

Every parameter is random, norm gains and biases included, so that a test which
forgets a gain, a bias or a head permutation fails instead of passing by luck.
The values depend on `seed` and the parameter names only, not on transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

PICO_FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "opt",
    "gpt_neox",
    "bloom",
    "falcon",
)

TokenizerKind = Literal["byte-level", "sentencepiece-like"]

HEADS, KV_HEADS, CONTEXT = 4, 2, 128
SPECIALS = ("<pad>", "<bos>", "<eos>")
WORDS = (
    "the",
    "and",
    "of",
    "to",
    "in",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "Paris",
    "is",
    "city",
    "été",
    "!",
    "42",
)


def build_pico(
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    width: int | None = None,
    layers: int | None = None,
    shards: int | None = None,
    dtype: torch.dtype = torch.float32,
    tokenizer: TokenizerKind | None = "byte-level",
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Save a random model of `family` to `folder` and return the folder.

    Args:
        family: one of `PICO_FAMILIES` (or another model_type whose config takes the Llama names).
        folder: created if need be; files in it are overwritten.
        seed: of the weights.
        width: residual width, a multiple of 8; 32 unless told.
        layers: 2 unless told.
        shards: how many safetensors shards with an index; None for one plain `model.safetensors`.
        dtype: of the saved tensors.
        tokenizer: alphabet of the `tokenizer.json` written beside the weights; None for no tokenizer.
            (`AutoTokenizer` insists on byte-level for Qwen 2, whatever the file says.)
        overrides: config fields laid over the family's own, for variants such as Falcon's.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = build_tokenizer(tokenizer or "byte-level")
    fields = pico_config(family, width or 32, layers or 2, tokens.get_vocab_size())
    config = AutoConfig.for_model(family, **{**fields, **(overrides or {})})
    if getattr(config, "hidden_size", None) != (width or 32):  # a model of billions would be built otherwise
        raise ValueError(f"expected a model_type that takes the fields of a pico model, got {family}")
    model = AutoModelForCausalLM.from_config(config)
    fill_random(model, seed)
    model.to(dtype).save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokens, folder)
    if shards is not None:
        split_into_shards(folder, shards)
    return folder


def pico_config(family: str, width: int, layers: int, vocab: int) -> dict[str, Any]:
    """Config fields of a pico model: 4 heads, 2 key/value heads where the family has them."""
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocab}
    llama = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": 3 * width // 2,
        "max_position_embeddings": CONTEXT,
    }
    wide_heads = {**llama, "head_dim": width // 2}
    plain = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": HEADS}
    own: dict[str, dict[str, Any]] = {
        "qwen3": wide_heads,
        "gemma": wide_heads,
        "gemma2": {**wide_heads, "query_pre_attn_scalar": width // 2},
        "gemma3_text": {**wide_heads, "query_pre_attn_scalar": width // 2},
        "gpt2": {"n_embd": width, "n_layer": layers, "n_head": HEADS, "n_positions": CONTEXT},
        "opt": {
            **plain,
            "ffn_dim": 2 * width,
            "word_embed_proj_dim": width,
            "max_position_embeddings": CONTEXT,
        },
        "gpt_neox": {**plain, "intermediate_size": 2 * width, "max_position_embeddings": CONTEXT},
        "bloom": {"hidden_size": width, "n_layer": layers, "n_head": HEADS},
        "falcon": {**plain, "new_decoder_architecture": True, "num_kv_heads": KV_HEADS},
    }
    return {**own.get(family, llama), **tokens}


def fill_random(model: torch.nn.Module, seed: int) -> None:
    """Matrices ~ N(0, 1/fan_in); vectors (gains, biases) their initial value plus noise of 0.3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)


def split_into_shards(folder: Path, shards: int) -> None:
    """Replace `model.safetensors` by `shards` files and their index, tensors dealt out in turn."""
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[shard::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def build_tokenizer(kind: TokenizerKind) -> Tokenizer:
    """A BPE over all 256 bytes and the words of `WORDS`, each with and without a space before it."""
    return byte_level_tokenizer() if kind == "byte-level" else sentencepiece_tokenizer()


def byte_level_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spellings = [split.pre_tokenize_str(text)[0][0] for text in spaced_words()]
    vocab, merges = bpe_tables([*SPECIALS, *alphabet], spellings)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted(set("▁".join(WORDS)) | set("abcdefghijklmnopqrstuvwxyz"))
    spellings = [text.replace(" ", "▁") for text in spaced_words()]
    vocab, merges = bpe_tables([*SPECIALS, *fallback, *letters], spellings)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def spaced_words() -> list[str]:
    """Spaced spellings first: their merges then win, and " cat" becomes one token."""
    return [prefix + word for prefix in (" ", "") for word in WORDS]


def bpe_tables(symbols: list[str], spellings: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and left-to-right merges that build each spelling from single symbols."""
    tokens, merges = list(symbols), []
    for spelling in spellings:
        for end in range(2, len(spelling) + 1):
            left, right = spelling[: end - 1], spelling[end - 1]
            if spelling[:end] not in tokens:
                tokens.append(spelling[:end])
                merges.append((left, right))
    return {token: number for number, token in enumerate(tokens)}, merges


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the config that makes `AutoTokenizer` load it as it is."""
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, bos, eos = SPECIALS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": bos,
        "eos_token": eos,
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
