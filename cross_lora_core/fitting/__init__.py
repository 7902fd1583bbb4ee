"""Methods that run the bases: they fit what an adapter does instead of carrying over its matrices.

Apart from `migration`, because whoever only plans, receives or reports should not load transformers and PEFT.
"""

from cross_lora_core.fitting.effect import EffectFit, EffectSide, fit_effect

__all__ = ["EffectFit", "EffectSide", "fit_effect"]
