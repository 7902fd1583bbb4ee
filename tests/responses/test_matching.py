"""Pairs of positions in two tokenisations of one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors

from cross_lora_core.responses import matched_positions, spread
from tests.support.pico_models import byte_level_tokenizer, sentencepiece_tokenizer


def offsets(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    return tokenizer.encode(text).offsets


def starting(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return tokenizer


def test_both_ends_on_the_same_character_and_the_first_are_dropped():
    text = "the cat sat"
    source = [(0, 3), (3, 7), (7, 9), (9, 11)]
    target = [(0, 0), (0, 3), (4, 5), (5, 7), (7, 11)]
    assert matched_positions(text, source, target, 0) == [(0, 1), (1, 3), (3, 4)]
    assert matched_positions(text, source, target, 2) == [(3, 4)]


def test_the_last_of_the_tokens_that_share_a_character_has_read_it():
    assert matched_positions("aé!", [(0, 1), (1, 2), (1, 2), (2, 3)], [(0, 2), (2, 3)], 0) == [(2, 0), (3, 1)]


def test_spans_that_lead_nowhere_are_dropped():
    """Empty spans, spans beyond the text, and ends that go back."""
    assert matched_positions("abc", [(0, 1), (1, 1), (1, 9), (1, 3)], [(0, 3), (0, 1)], 0) == [(0, 1)]


TEXTS = st.text(st.sampled_from("the cat été 42! 漢字🙂é\n "), min_size=1, max_size=40)


@given(text=TEXTS)
def test_paired_tokens_have_read_the_same_text(text):
    """The oracle decodes both prefixes: byte-level against SentencePiece, with special tokens around."""
    source, target = starting(byte_level_tokenizer()), starting(sentencepiece_tokenizer())
    ours, theirs = source.encode(text), target.encode(text)
    pairs = matched_positions(text, ours.offsets, theirs.offsets, 0)
    for i, j in pairs:
        assert source.decode(ours.ids[: i + 1]) == target.decode(theirs.ids[: j + 1])
    assert pairs[-1] == (len(ours.ids) - 2, len(theirs.ids) - 2)


def test_a_leading_space_may_stand_inside_or_outside_the_span():
    inside = byte_level_tokenizer()
    outside = byte_level_tokenizer()
    outside.post_processor = processors.ByteLevel(trim_offsets=True)
    text = "the cat sat on the mat"
    assert offsets(inside, text) != offsets(outside, text)
    pairs = matched_positions(text, offsets(inside, text), offsets(outside, text), 0)
    assert pairs == [(number, number) for number in range(6)]


@pytest.mark.parametrize(
    "normalizer", [normalizers.NFC(), normalizers.Lowercase(), normalizers.Prepend("▁"), normalizers.Strip()]
)
def test_a_normaliser_that_changes_the_text_costs_positions_not_truth(normalizer):
    vocab = {character: number for number, character in enumerate("\u2581 thecasonmPrié")}
    changed = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="t"))
    changed.normalizer = normalizer
    text = " The cate\u0301 sat "
    pairs = matched_positions(text, offsets(byte_level_tokenizer(), text), offsets(changed, text), 0)
    plain, other = byte_level_tokenizer().encode(text), changed.encode(text)
    assert len(pairs) >= 4
    assert all(plain.offsets[i][1] == other.offsets[j][1] for i, j in pairs)


def test_amounts_are_spread_by_the_characters_both_stand_for():
    ours = [(0, 0), (0, 4), (4, 6), (6, 8)]
    theirs = [(0, 0), (0, 2), (2, 6), (6, 7), (7, 8)]
    assert spread([9.0, 4.0, 1.0, 3.0], ours, theirs) == pytest.approx([0.0, 2.0, 3.0, 1.5, 1.5])
    assert spread([], [], [(0, 3)]) == [0.0]


@given(st.text("the cat sat on été!", min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_tokens_that_are_read_alike_keep_their_amounts_and_others_the_sum(text, random):
    one, other = byte_level_tokenizer(), sentencepiece_tokenizer()
    ours, theirs = offsets(one, text), offsets(other, text)
    amounts = [random.random() for _ in ours]
    if len(set(ours)) == len(ours):  # no two share the bytes of a character
        assert spread(amounts, ours, ours) == pytest.approx(amounts)
    covered = {at for start, stop in theirs for at in range(start, stop)}
    if len(set(theirs)) == len(theirs) and covered == set(range(len(text))):
        assert sum(spread(amounts, ours, theirs)) == pytest.approx(sum(amounts))
