"""Probe strings: what two models are run on so that their responses can be compared. No user data."""

from __future__ import annotations

import random
from enum import StrEnum
from importlib import resources

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import BaseModel, shared_tokens
from cross_lora_core.responses.sampling import sample_strings

__all__ = ["ProbeKind", "probe_strings", "text_strings", "token_strings"]

TEXT_FILE = "devils-dictionary.txt"
TEXT_LENGTH = 500
"""Characters of a piece of the bundled text: about as many as 140 tokens have."""


class ProbeKind(StrEnum):
    """Where probe strings come from."""

    GENERATED = "generated"
    TOKENS = "tokens"
    TEXT = "text"


def probe_strings(
    kind: ProbeKind,
    count: int,
    *,
    source: BaseModel,
    target: BaseModel,
    loaded: LoadedBase,
    tokens: int = 140,
    seed: int = 0,
) -> tuple[str, ...]:
    """Strings of one kind.

    Args:
        kind: which.
        count: strings wanted.
        source: the source base, for the tokens both bases have.
        target: the target base, likewise.
        loaded: the model that writes `generated` strings.
        tokens: the most a generated or random string has.
        seed: the same seed gives the same strings.

    Raises:
        ConfigurationError: more pieces of text than the bundled one has, or no shared tokens.
        BaseModelError: the model ends every text at once.
    """
    if kind is ProbeKind.GENERATED:
        return sample_strings(loaded, count, tokens=tokens, seed=seed)
    if kind is ProbeKind.TOKENS:
        return token_strings(source, target, count, tokens=tokens, seed=seed)
    return text_strings(count, seed=seed)


def token_strings(
    source: BaseModel, target: BaseModel, count: int, *, tokens: int = 140, seed: int = 0
) -> tuple[str, ...]:
    """Random sequences of tokens that both vocabularies contain, as text.

    Raises:
        ConfigurationError: the bases share no tokens.
    """
    ids, _ = shared_tokens(source, target)
    surface_of = {number: surface for surface, number in source.tokens().items()}
    surfaces = [surface_of[number].decode() for number in ids]
    if not surfaces:
        raise ConfigurationError(
            "bases with tokens in common",
            "none",
            f"{source.name} and {target.name}",
            "Use generated strings or the bundled text as probes.",
        )
    drawn = random.Random(seed)  # noqa: S311 - reproducible probes, not secrets
    return tuple("".join(drawn.choices(surfaces, k=tokens)) for _ in range(count))


def text_strings(count: int, *, seed: int = 0) -> tuple[str, ...]:
    """Pieces of the bundled text: entries of Ambrose Bierce's Devil's Dictionary (1911) in random order.

    Raises:
        ConfigurationError: the text has fewer pieces.
    """
    text = resources.files(__package__).joinpath(TEXT_FILE).read_text(encoding="utf-8")
    entries = text.splitlines(keepends=True)
    random.Random(seed).shuffle(entries)  # noqa: S311 - reproducible probes, not secrets
    pieces = _pieces(entries)
    if count > len(pieces):
        raise ConfigurationError(
            f"at most {len(pieces)} pieces of the bundled text",
            str(count),
            TEXT_FILE,
            "Ask for fewer probes, or for generated or random ones.",
        )
    return tuple(pieces[:count])


def _pieces(entries: list[str]) -> list[str]:
    """Whole entries joined until a piece is long enough; what is left over is too short."""
    pieces, piece = [], ""
    for entry in entries:
        piece += entry
        if len(piece) >= TEXT_LENGTH:
            pieces.append(piece)
            piece = ""
    return pieces
