"""One table of names per architecture family: which module plays which role.

Everything a family calls by its own name is data here. Paths are relative to a
layer; `container` is what stands before them in the family's causal-LM class
(the names PEFT puts in its keys). A checkpoint may use another container, which
`cross_lora_core.models.naming` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cross_lora_core.errors import UnknownArchitecture
from cross_lora_core.models.roles import Role

__all__ = ["FAMILIES", "Family", "family_of"]

QKV = (Role.q, Role.k, Role.v)
GATE_UP = (Role.gate, Role.up)


@dataclass(frozen=True)
class Family:
    """Names and conventions of one architecture family.

    Attributes:
        name: the `model_type` of config.json.
        container: prefix of the decoder in the causal-LM class, with its dot.
        stack: name of the list of layers inside the container.
        embedding: name of the input embedding inside the container.
        modules: path inside a layer -> the roles this module serves, in row order.
        input_norms: role -> path of the norm whose output the role reads.
        output_norms: role -> path of the norm applied to the role's output.
        layout: how a fused module orders its rows: one block per role, or per group of
            heads that share a key ([group, queries + key + value, head_dim]).
        transposed: weights are stored [d_in, d_out].
        gain_offset: added to a stored norm weight to get the multiplier (Gemma: 1).
        head_dim: what the family assumes when config.json is silent; None for d_model / heads.
    """

    name: str
    container: str
    stack: str
    embedding: str
    modules: Mapping[str, tuple[Role, ...]]
    input_norms: Mapping[Role, str]
    output_norms: Mapping[Role, str] = field(default_factory=dict)
    layout: Literal["blocks", "groups"] = "blocks"
    transposed: bool = False
    gain_offset: float = 0.0
    head_dim: int | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles this family has, in the order of `Role`."""
        served = {role for roles in self.modules.values() for role in roles}
        return tuple(role for role in Role if role in served)

    def module_of(self, role: Role) -> str:
        """Path inside a layer of the module that serves `role`."""
        return next(path for path, roles in self.modules.items() if role in roles)


def _norms(attention: str, feed_forward: str) -> dict[Role, str]:
    return {**dict.fromkeys(QKV, attention), **dict.fromkeys(GATE_UP, feed_forward)}


LLAMA = Family(
    name="llama",
    container="model.",
    stack="layers",
    embedding="embed_tokens",
    modules={
        "self_attn.q_proj": (Role.q,),
        "self_attn.k_proj": (Role.k,),
        "self_attn.v_proj": (Role.v,),
        "self_attn.o_proj": (Role.o,),
        "mlp.gate_proj": (Role.gate,),
        "mlp.up_proj": (Role.up,),
        "mlp.down_proj": (Role.down,),
    },
    input_norms=_norms("input_layernorm", "post_attention_layernorm"),
)

GEMMA = replace(LLAMA, name="gemma", gain_offset=1.0, head_dim=256)

GEMMA2 = replace(
    GEMMA,
    name="gemma2",
    input_norms=_norms("input_layernorm", "pre_feedforward_layernorm"),
    output_norms={Role.o: "post_attention_layernorm", Role.down: "post_feedforward_layernorm"},
)

PHI3 = replace(
    LLAMA,
    name="phi3",
    modules={
        "self_attn.qkv_proj": QKV,
        "self_attn.o_proj": (Role.o,),
        "mlp.gate_up_proj": GATE_UP,
        "mlp.down_proj": (Role.down,),
    },
)

GPT2 = Family(
    name="gpt2",
    container="transformer.",
    stack="h",
    embedding="wte",
    modules={
        "attn.c_attn": QKV,
        "attn.c_proj": (Role.o,),
        "mlp.c_fc": (Role.up,),
        "mlp.c_proj": (Role.down,),
    },
    input_norms=_norms("ln_1", "ln_2"),
    transposed=True,
)

OPT = Family(
    name="opt",
    container="model.decoder.",
    stack="layers",
    embedding="embed_tokens",
    modules={
        "self_attn.q_proj": (Role.q,),
        "self_attn.k_proj": (Role.k,),
        "self_attn.v_proj": (Role.v,),
        "self_attn.out_proj": (Role.o,),
        "fc1": (Role.up,),
        "fc2": (Role.down,),
    },
    input_norms=_norms("self_attn_layer_norm", "final_layer_norm"),
)

GPT_NEOX = Family(
    name="gpt_neox",
    container="gpt_neox.",
    stack="layers",
    embedding="embed_in",
    modules={
        "attention.query_key_value": QKV,
        "attention.dense": (Role.o,),
        "mlp.dense_h_to_4h": (Role.up,),
        "mlp.dense_4h_to_h": (Role.down,),
    },
    input_norms=_norms("input_layernorm", "post_attention_layernorm"),
    layout="groups",
)

BLOOM = replace(
    GPT_NEOX,
    name="bloom",
    container="transformer.",
    stack="h",
    embedding="word_embeddings",
    modules={
        "self_attention.query_key_value": QKV,
        "self_attention.dense": (Role.o,),
        "mlp.dense_h_to_4h": (Role.up,),
        "mlp.dense_4h_to_h": (Role.down,),
    },
)

FALCON = replace(BLOOM, name="falcon")

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        LLAMA,
        replace(LLAMA, name="mistral"),
        replace(LLAMA, name="smollm3"),
        replace(LLAMA, name="qwen2"),
        replace(LLAMA, name="qwen3", head_dim=128),
        GEMMA,
        GEMMA2,
        replace(GEMMA2, name="gemma3_text"),
        replace(GEMMA2, name="gemma3", container="model.language_model."),
        PHI3,
        GPT2,
        OPT,
        GPT_NEOX,
        BLOOM,
        FALCON,
    )
}


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The table for this config.json, with the variants that the config chooses laid in.

    Raises:
        UnknownArchitecture: no table for its `model_type`; the message lists those there are.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise UnknownArchitecture(
            f"a model_type among {', '.join(FAMILIES)}",
            f"{model_type!r}" if model_type else "no model_type",
            where,
            "Use a base of one of these families, or add a table for this one to "
            "cross_lora_core/models/families.py.",
        )
    return replace(family, input_norms=_input_norms(family, config))


def _input_norms(family: Family, config: Mapping[str, Any]) -> Mapping[Role, str]:
    """Falcon names its norms by how many branches share one; early OPT has no norm before a branch."""
    if family.name == "falcon":
        return _falcon_norms(config)
    if family.name == "opt" and not config.get("do_layer_norm_before", True):
        return {}
    return family.input_norms


def _falcon_norms(config: Mapping[str, Any]) -> Mapping[Role, str]:
    if config.get("new_decoder_architecture") and (config.get("num_ln_in_parallel_attn") or 2) == 2:
        return _norms("ln_attn", "ln_mlp")
    if config.get("parallel_attn", True):
        return _norms("input_layernorm", "input_layernorm")
    return _norms("input_layernorm", "post_attention_layernorm")
