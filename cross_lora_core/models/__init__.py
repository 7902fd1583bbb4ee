"""Base models: which weight does what, read one tensor at a time, known by its digest.

    base = open_base("bases/smollm2-135m")        # a folder, here or on S3, or a hub id
    base.linear(3, Role.q).module                 # 'model.layers.3.self_attn.q_proj'
    base.read_weight(3, Role.q)                   # float32 [d_out, d_in], y = W x
    base.read_gains(3, Role.q)                    # what the norms around it multiply by

Names of modules differ between families; roles do not. A family is a table in
`families.py`. Nothing here imports transformers or runs a repository's code.
"""

from __future__ import annotations

from cross_lora_core.models.base import BaseModel, open_base
from cross_lora_core.models.copying import local_base
from cross_lora_core.models.families import FAMILIES, Family
from cross_lora_core.models.layers import (
    DEFAULT_GROUP_BYTES,
    LayerGroup,
    factor_bytes,
    layer_groups,
    map_layers,
    proportional,
)
from cross_lora_core.models.naming import find_role
from cross_lora_core.models.roles import LinearSpec, Role
from cross_lora_core.models.vocabulary import shared_tokens

__all__ = [
    "DEFAULT_GROUP_BYTES",
    "FAMILIES",
    "BaseModel",
    "Family",
    "LayerGroup",
    "LinearSpec",
    "Role",
    "factor_bytes",
    "find_role",
    "layer_groups",
    "local_base",
    "map_layers",
    "open_base",
    "proportional",
    "shared_tokens",
]
