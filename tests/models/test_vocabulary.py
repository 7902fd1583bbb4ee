"""Tokens as bytes, whatever alphabet a tokenizer writes them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models import open_base, shared_tokens
from cross_lora_core.models.vocabulary import read_tokens
from cross_lora_core.storage import LocalFolder
from tests.models.conftest import PicoFactory
from tests.support.pico_models import SPECIALS, WORDS

KINDS = ("byte-level", "sentencepiece-like")


def write_tokenizer(folder: Path, **description: Any) -> LocalFolder:
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return LocalFolder(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_what_its_decoder_says(pico: PicoFactory, kind: str) -> None:
    folder = pico("llama", tokenizer=kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = open_base(folder).tokens()
    for surface, number in tokens.items():
        assert tokenizer.decode([number]) == surface.decode(errors="replace")
    assert {bytes([byte]) for byte in range(256)} <= tokens.keys()
    assert {word.encode() for word in WORDS} | {f" {word}".encode() for word in WORDS} <= tokens.keys()
    assert not {special.encode() for special in SPECIALS} & tokens.keys()


def test_two_alphabets_share_words_and_not_ids(pico: PicoFactory) -> None:
    ours = open_base(pico("llama", tokenizer=KINDS[0]))
    theirs = open_base(pico("gpt2", tokenizer=KINDS[1]))
    a, b = shared_tokens(ours, theirs)
    spelled_a = {number: surface for surface, number in ours.tokens().items()}
    spelled_b = {number: surface for surface, number in theirs.tokens().items()}
    assert len(a) == len(b) == len(set(a)) > 100
    assert [spelled_a[number] for number in a] == [spelled_b[number] for number in b]
    assert " été".encode() in {spelled_a[number] for number in a}
    assert a != b


def test_the_choice_is_symmetric_limited_and_stable(pico: PicoFactory) -> None:
    ours, theirs = open_base(pico("llama", tokenizer=KINDS[0])), open_base(pico("gpt2", tokenizer=KINDS[1]))
    a, b = shared_tokens(ours, theirs, limit=20)
    assert (b, a) == shared_tokens(theirs, ours, limit=20)
    assert (a, b) == shared_tokens(open_base(ours.location), open_base(theirs.location), limit=20)
    everything = shared_tokens(ours, theirs)
    assert (a, b) == (everything[0][:20], everything[1][:20])


def test_bytes_that_are_no_text_are_not_shared(pico: PicoFactory) -> None:
    base = open_base(pico("llama"))
    chosen, _ = shared_tokens(base, base)
    spelled = {number: surface for surface, number in base.tokens().items()}
    surfaces = {spelled[number] for number in chosen}
    assert b"\n" in surfaces
    assert not {b"\x00", b"\x7f", b"\x80", b"\xff"} & surfaces


def test_tokens_beyond_the_embedding_are_not_shared(pico: PicoFactory) -> None:
    short = open_base(pico("llama", overrides={"vocab_size": 120}))
    chosen, _ = shared_tokens(short, open_base(pico("llama")))
    assert chosen
    assert max(chosen) < 120


def test_an_ordinary_token_wins_over_a_fallback_byte_and_the_lower_id_over_the_higher(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"<0x41>": 0, "A": 1, "▁": 2, " ": 3, "": 4}}
    tokens = read_tokens(write_tokenizer(tmp_path, model=model, decoder={"type": "ByteFallback"}))
    assert tokens == {b"A": 1, b" ": 2}


def test_unigram_vocabularies_and_added_tokens(tmp_path: Path) -> None:
    model = {"type": "Unigram", "vocab": [["<s>", 0.0], ["▁a", -1.0], ["<tool>", -2.0]]}
    added = [{"id": 0, "content": "<s>", "special": True}, {"id": 2, "content": "<tool>", "special": False}]
    folder = write_tokenizer(
        tmp_path, model=model, added_tokens=added, pre_tokenizer={"type": "Metaspace", "replacement": "▁"}
    )
    assert read_tokens(folder) == {b" a": 1}


def test_nested_components_are_looked_into(tmp_path: Path) -> None:
    nested = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel", "add_prefix_space": False}],
    }
    folder = write_tokenizer(tmp_path, model={"vocab": {"Ġa": 5, "ĠĊ": 6}}, pre_tokenizer=nested)
    assert read_tokens(folder) == {b" a": 5, b" \n": 6}


@pytest.mark.parametrize(
    "description",
    [
        {"model": {"vocab": {"a": 0}}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
        {"model": {}, "decoder": {"type": "ByteLevel"}},
        {"decoder": {"type": "ByteFallback"}},
    ],
)
def test_another_kind_of_tokenizer_is_refused(tmp_path: Path, description: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError, match=r"byte-level or SentencePiece tokenizer\.json"):
        read_tokens(write_tokenizer(tmp_path, **description))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        read_tokens(LocalFolder(tmp_path))


def test_a_base_without_a_tokenizer_opens_and_says_so_when_asked(pico: PicoFactory) -> None:
    base = open_base(pico("llama", tokenizer=None))
    assert base.read_embedding([1]).shape == (1, 32)
    with pytest.raises(BaseModelError, match="to match tokens between bases"):
        base.tokens()
