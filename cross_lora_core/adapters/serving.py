"""Would vLLM serve this adapter? Its loader's rules, checked on the files without vLLM.

The rules are those of vLLM 0.33: `PEFTHelper` (features it refuses), `LoRAModel`
(tensor names), `LoRAConfig` (ranks) and the resolvers (layout, base named in the
config). Older versions read only the global `r` and `lora_alpha`, so patterns
are refused here too, which newer ones would take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cross_lora_core.adapters.writing import SERVABLE_RANKS
from cross_lora_core.models import BaseModel, LinearSpec

__all__ = ["serving_problems"]

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_DTYPES = ("F16", "BF16", "F32")
_UNSUPPORTED = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
)


def serving_problems(folder: Path, base: BaseModel, *, max_lora_rank: int | None = None) -> tuple[str, ...]:
    """What would keep vLLM from serving the adapter, or make it change nothing; empty if nothing would.

    Args:
        folder: of the adapter.
        base: the base it is for, named as the server names it.
        max_lora_rank: of the server; by default the largest that vLLM knows.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        shapes = _shapes(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        return (f"a file that the loader reads is missing or damaged: {error}",)
    if not isinstance(config, dict):
        return ("adapter_config.json is not a JSON object",)
    return (
        *_config_problems(config, base, max_lora_rank or SERVABLE_RANKS[-1]),
        *_tensor_problems(shapes, config.get("r"), base),
    )


def _shapes(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    with safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}


def _config_problems(config: Mapping[str, Any], base: BaseModel, largest: int) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, not 'LORA'"
    if config.get("base_model_name_or_path") != base.name:
        yield f"base_model_name_or_path is {config.get('base_model_name_or_path')}, not {base.name}"
    if config.get("r") not in SERVABLE_RANKS or config["r"] > largest:
        yield f"r = {config.get('r')} is not among {[one for one in SERVABLE_RANKS if one <= largest]}"
    if not isinstance(config.get("lora_alpha"), int):
        yield f"lora_alpha is {config.get('lora_alpha')!r}, not a whole number"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}: trained biases are not served"
    if isinstance(config.get("init_lora_weights"), str):
        yield f"init_lora_weights is {config['init_lora_weights']!r}: it may change the base"
    yield from (f"{name} is not served" for name in _UNSUPPORTED if config.get(name))


def _tensor_problems(
    shapes: Mapping[str, tuple[tuple[int, ...], str]], rank: object, base: BaseModel
) -> Iterator[str]:
    """Names are compared whole: vLLM checks only their last part, and a wrong path then changes nothing."""
    places = {one.module: one for one in base.linears()}
    sides: dict[str, str] = {}
    for name, (shape, dtype) in sorted(shapes.items()):
        match = _FACTOR.fullmatch(name)
        place = places.get(match["module"]) if match else None
        if match is None or place is None:
            yield f"{name}: no such module in {base.name}"
            continue
        sides[place.module] = sides.get(place.module, "") + match["side"]
        yield from _factor_problems(name, shape, dtype, _expected(place, match["side"], rank))
    yield from (
        f"{module}: one factor is missing" for module, found in sorted(sides.items()) if found != "AB"
    )
    if not sides:
        yield "no LoRA factors at all"


def _expected(place: LinearSpec, side: str, rank: object) -> tuple[object, ...]:
    return (rank, place.d_in) if side == "A" else (place.fused_out or place.d_out, rank)


def _factor_problems(
    name: str, shape: tuple[int, ...], dtype: str, expected: tuple[object, ...]
) -> Iterator[str]:
    if shape != expected:
        yield f"{name}: shape {list(shape)}, not {list(expected)}"
    if dtype not in _DTYPES:
        yield f"{name}: {dtype} is not one of {', '.join(_DTYPES)}"
