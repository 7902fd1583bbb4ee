"""Tokens of a base as the bytes they stand for, so that two vocabularies can be compared.

`tokenizer.json` spells the same bytes in two ways: byte-level BPE writes each byte as one
printable character (a space is `Ġ`), SentencePiece writes a space as `▁` and rare bytes as `<0x0A>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from cross_lora_core.errors import BaseModelError
from cross_lora_core.storage import Folder

__all__ = ["read_tokens", "shared_tokens"]

Spelling = Literal["byte-level", "sentencepiece"]
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE_MARK = "▁"
FILE = "tokenizer.json"


class HasTokens(Protocol):
    """Anything with a vocabulary and an embedding."""

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        ...

    def tokens(self) -> dict[bytes, int]:
        """Surface bytes -> id."""
        ...


def shared_tokens(a: HasTokens, b: HasTokens, limit: int = 4096) -> tuple[list[int], list[int]]:
    """Ids of tokens that stand for the same bytes in both bases, paired by position.

    Control characters and tokens that are not whole UTF-8 are left out (they are hardly trained).
    Where there are more than `limit`, those that come early in both vocabularies, so mostly frequent
    ones, are taken. Deterministic, and symmetric in `a` and `b`.

    Returns:
        Two lists of the same length, at most `limit`; both empty where nothing is shared.
    """
    ours, theirs = a.tokens(), b.tokens()
    common = [
        (ours[surface] * b.vocabulary + theirs[surface] * a.vocabulary, surface)
        for surface in ours.keys() & theirs.keys()
        if _is_text(surface) and ours[surface] < a.vocabulary and theirs[surface] < b.vocabulary
    ]
    chosen = [surface for _, surface in sorted(common)[:limit]]
    return [ours[surface] for surface in chosen], [theirs[surface] for surface in chosen]


def read_tokens(folder: Folder) -> dict[bytes, int]:
    """Surface bytes of each ordinary token -> id; added and special tokens are left out.

    Where two tokens stand for the same bytes, an ordinary spelling wins over `<0x..>`, then the lower id.

    Raises:
        BaseModelError: no tokenizer.json, or one of another kind than byte-level or SentencePiece.
    """
    where, description = folder.where(FILE), _load(folder)
    spelling = _spelling_of(description, where)
    added = {entry["id"] for entry in description.get("added_tokens") or ()}
    tokens: dict[bytes, int] = {}
    for _, number, surface in sorted(_surfaces(_vocabulary_of(description, where), spelling)):
        if number not in added and surface:
            tokens.setdefault(surface, number)
    return tokens


def _load(folder: Folder) -> dict[str, Any]:
    try:
        description = json.loads(folder.read(FILE))
    except FileNotFoundError as error:
        raise BaseModelError(
            "tokenizer.json, to match tokens between bases",
            "no such file",
            folder.where(),
            "Download it with the base, or let AutoTokenizer save_pretrained it into the folder.",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(folder.where(FILE), f"{type(error).__name__}: {error}") from error
    if not isinstance(description, dict):
        raise _unusable(folder.where(FILE), type(description).__name__)
    return description


def _vocabulary_of(description: dict[str, Any], where: str) -> Iterator[tuple[str, int]]:
    """Spelling and id of each token: BPE holds a dictionary, Unigram a list of [token, score]."""
    vocab = (description.get("model") or {}).get("vocab")
    if isinstance(vocab, dict):
        return iter(vocab.items())
    if isinstance(vocab, list):
        return ((entry[0], number) for number, entry in enumerate(vocab))
    raise _unusable(where, "no model.vocab")


def _spelling_of(description: dict[str, Any], where: str) -> Spelling:
    parts = [
        part for name in ("normalizer", "pre_tokenizer", "decoder") for part in _parts(description.get(name))
    ]
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        return "byte-level"
    marks = any(SPACE_MARK in json.dumps(part, ensure_ascii=False) for part in parts)
    if kinds & {"Metaspace", "ByteFallback"} or marks:
        return "sentencepiece"
    raise _unusable(where, f"a tokenizer of parts {sorted(str(kind) for kind in kinds)}")


def _parts(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A component of the tokenizer and, where it is a sequence, those inside it."""
    if component:
        yield component
        for inner in ("normalizers", "pretokenizers", "decoders"):
            for part in component.get(inner) or ():
                yield from _parts(part)


def _surfaces(vocabulary: Iterator[tuple[str, int]], spelling: Spelling) -> Iterator[tuple[bool, int, bytes]]:
    """(whether it is a byte-fallback token, id, bytes) of each token that can be read."""
    for token, number in vocabulary:
        if spelling == "byte-level":
            if all(character in BYTE_OF for character in token):
                yield False, number, bytes(BYTE_OF[character] for character in token)
        elif match := BYTE_TOKEN.fullmatch(token):
            yield True, number, bytes([int(match[1], 16)])
        else:
            yield False, number, token.replace(SPACE_MARK, " ").encode("utf-8", "surrogatepass")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's stand-ins: printable Latin-1 stands for itself, the rest follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(0x100 + position): byte for position, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()


def _is_text(surface: bytes) -> bool:
    try:
        text = surface.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r" for character in text)


def _unusable(where: str, got: str) -> BaseModelError:
    return BaseModelError(
        "a byte-level or SentencePiece tokenizer.json",
        got,
        where,
        "Save the fast tokenizer of this base into the folder again.",
    )
