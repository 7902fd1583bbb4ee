"""Methods that run the bases: they fit or learn what an adapter does, or how two bases respond to strings.

Apart from `migration`, because whoever only plans, receives or reports should not load transformers and PEFT.
"""

from cross_lora_core.fitting.effect import EffectFit, EffectOptions, fit_effect
from cross_lora_core.fitting.maps import fit_maps
from cross_lora_core.fitting.pair_moments import PairMoments, pair_moments
from cross_lora_core.fitting.refine import RefineFit, refine
from cross_lora_core.fitting.sides import EffectSide
from cross_lora_core.fitting.stream_moments import stream_moments

__all__ = [
    "EffectFit",
    "EffectOptions",
    "EffectSide",
    "PairMoments",
    "RefineFit",
    "fit_effect",
    "fit_maps",
    "pair_moments",
    "refine",
    "stream_moments",
]
