"""Decide every field of PEFT's `adapter_config.json`: handled exactly, reported, or refused.

Nothing is ignored because it is unknown: a field that changes what the adapter
computes and is not handled here leads to a refusal that names it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cross_lora_core.adapters.patterns import runaway_pattern
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.storage import Folder

__all__ = ["CONFIG_FILE", "AdapterConfig", "named_base", "read_config"]

CONFIG_FILE = "adapter_config.json"
_LARGEST_RANK = 2**20
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_REFUSED = {
    "use_dora": "DoRA rescales each column by a magnitude vector that depends on the source weights",
    "lora_bias": "lora_B has a bias, which is not a low-rank update",
    "use_qalora": "QALoRA pools the input in groups before lora_A",
    "use_bdlora": "block-diagonal LoRA is sharded, its factors are not plain matrices",
    "alora_invocation_tokens": "an activated LoRA is switched on by tokens of its own base's prompts",
    "arrow_config": "Arrow routes between several adapters",
    "kasa_config": "KaSA adds learned singular values and changes the base",
    "monteclora_config": "MonteCLoRA samples its factors",
    "layer_replication": "the base was deepened by copying layers",
    "megatron_config": "PEFT would import whatever module the config names",
    "target_parameters": "the update sits on bare parameters of experts",
}
_HARMLESS = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
    "target_modules", "task_type", "trainable_token_indices", "use_rslora", "velora_config",
})  # fmt: skip


@dataclass(frozen=True)
class AdapterConfig:
    """What of an adapter's config decides its update.

    Attributes:
        base_name: `base_model_name_or_path`.
        variant: `lora` or `rslora`.
        notes: what was seen and has no effect on the update.
    """

    base_name: str | None
    revision: str | None
    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    saved_modules: tuple[str, ...] = ()
    token_indices: bool = False
    notes: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """The flavour of LoRA."""
        return "rslora" if self.rslora else "lora"

    def rank_of(self, module: str) -> int:
        """The rank the config gives a module (PEFT's `rank_pattern` rules)."""
        return int(_matching(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str, rank: int) -> float:
        """`alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA; alpha by PEFT's `alpha_pattern` rules."""
        alpha = float(_matching(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _matching(pattern: Mapping[str, float], module: str, default: float) -> float:
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def read_config(folder: Folder) -> AdapterConfig:
    """Read `adapter_config.json` of an adapter folder.

    Raises:
        AdapterRefused: missing, not JSON, not a LoRA, or a LoRA whose update is not a plain low-rank product.
    """
    file = folder.where(CONFIG_FILE)
    raw = _load(folder)
    _refuse_other_types(raw, file)
    _refuse_features(raw, file)
    _refuse_patterns(raw, file)
    try:
        return AdapterConfig(
            base_name=raw.get("base_model_name_or_path") or None,
            revision=raw.get("revision") or None,
            rank=_rank(raw["r"]),
            alpha=_alpha(raw["lora_alpha"]),
            rslora=bool(raw.get("use_rslora")),
            rank_pattern={key: _rank(value) for key, value in dict(raw.get("rank_pattern") or {}).items()},
            alpha_pattern={key: _alpha(value) for key, value in dict(raw.get("alpha_pattern") or {}).items()},
            saved_modules=tuple(raw.get("modules_to_save") or ()),
            token_indices=bool(raw.get("trainable_token_indices")),
            notes=_notes(raw),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AdapterRefused(
            "numbers for r and lora_alpha", f"{error!r}", file, "Save the adapter again with PEFT."
        ) from error


def _rank(value: Any) -> int:
    rank = int(value)
    if not 0 < rank < _LARGEST_RANK:
        raise ValueError(f"rank {rank}")
    return rank


def _alpha(value: Any) -> float:
    alpha = float(value)
    if not math.isfinite(alpha):
        raise ValueError(f"alpha {alpha}")
    return alpha


def named_base(folder: Folder) -> str | None:
    """The base any PEFT config names, also one that is refused; None if there is none to read."""
    try:
        return str(_load(folder).get("base_model_name_or_path") or "") or None
    except AdapterRefused:
        return None


def _load(folder: Folder) -> dict[str, Any]:
    remedy = "Give the folder that PEFT's save_pretrained wrote."
    try:
        raw = json.loads(folder.read(CONFIG_FILE))
    except FileNotFoundError as error:
        raise AdapterRefused(CONFIG_FILE, "no such file", folder.where(), remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(f"a readable {CONFIG_FILE}", str(error), folder.where(), remedy) from error
    if not isinstance(raw, dict):
        raise AdapterRefused("a JSON object", type(raw).__name__, folder.where(CONFIG_FILE), remedy)
    return raw


def _refuse_other_types(raw: Mapping[str, Any], file: str) -> None:
    kind = str(raw.get("peft_type"))
    if kind.upper() != "LORA":
        raise AdapterRefused(
            "peft_type LORA",
            f"peft_type {kind}",
            file,
            "Only LoRA updates are matrices that can be carried over; retrain this one on the target.",
        )


def _refuse_features(raw: Mapping[str, Any], file: str) -> None:
    reasons = [why for name, why in _REFUSED.items() if raw.get(name)]
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING_INITS):
        reasons.append(f"init_lora_weights={init} changed the base weights the update belongs to")
    unknown = [
        name for name, value in raw.items() if value and name.startswith("use_") and name not in _HARMLESS
    ]
    reasons += [f"{name} is not known to this version" for name in unknown if name not in _REFUSED]
    if reasons:
        raise AdapterRefused(
            "a plain LoRA, delta = scaling * B A",
            "; ".join(reasons),
            file,
            "Convert the adapter to a plain LoRA with PEFT first (merge it, then extract the difference).",
        )


def _refuse_patterns(raw: Mapping[str, Any], file: str) -> None:
    found = runaway_pattern(raw)
    if found is not None:
        raise AdapterRefused(
            "patterns of module names without repeated groups",
            repr(found[:80]),
            file,
            "Name the modules plainly in the config.",
        )


def _notes(raw: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = [
        name for name, value in raw.items() if value and name not in _HARMLESS and name not in _REFUSED
    ]
    return tuple(f"config field {name} is not known and was not used" for name in sorted(unknown))
