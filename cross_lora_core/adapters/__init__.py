"""PEFT LoRA folders in and out; every variant of LoRA is decided here.

adapter = read_adapter("adapters/tickets")           # refuses what cannot be moved, and says why
updates = updates_by_role(adapter, base).updates      # {(layer, role): LoraFactors}
write_adapter(folder, target, moved)                  # one servable rank, the target's own name
verify_adapter(folder, target)                        # N of N?
serving_problems(folder, target)                      # would vLLM load it?
"""

from cross_lora_core.adapters.checking import AdapterCheck, check_adapter
from cross_lora_core.adapters.copying import local_adapter
from cross_lora_core.adapters.reading import Adapter, LoraModule, Unusable, read_adapter
from cross_lora_core.adapters.roles import RoleUpdates, updates_by_role
from cross_lora_core.adapters.serving import serving_problems
from cross_lora_core.adapters.verifying import StructureReport, verify_adapter
from cross_lora_core.adapters.weights import read_tensors
from cross_lora_core.adapters.writing import (
    SERVABLE_RANKS,
    WrittenAdapter,
    module_updates,
    round_update,
    servable_rank,
    write_adapter,
)

__all__ = [
    "SERVABLE_RANKS",
    "Adapter",
    "AdapterCheck",
    "LoraModule",
    "RoleUpdates",
    "StructureReport",
    "Unusable",
    "WrittenAdapter",
    "check_adapter",
    "local_adapter",
    "module_updates",
    "read_adapter",
    "read_tensors",
    "round_update",
    "servable_rank",
    "serving_problems",
    "updates_by_role",
    "verify_adapter",
    "write_adapter",
]
