"""One migration, from what somebody asked for to what every layer group has to do.

request    what is asked                     resolve   names and folders to bases and adapters
refs       what stands for the two           planning  from those to a plan
plan       what will land, what will not     estimate  what it will cost
ladder     which methods are tried     similarity  whether two bases are related
layers     factorize, align, project         files     their safetensors form
alias      which version serves, as servers read it
spec, keys what a stored result depends on
"""

from cross_lora_core.migration.alias import Alias, read_alias
from cross_lora_core.migration.estimate import Estimate, estimate_plan, item_output_bytes
from cross_lora_core.migration.files import (
    GroupFile,
    read_alignment,
    read_factors,
    read_maps,
    read_projections,
    read_streams,
    read_training,
    write_alignments,
    write_factors,
    write_maps,
    write_projections,
    write_streams,
)
from cross_lora_core.migration.keys import (
    adapter_prefix,
    alias_key,
    alignment_key,
    factors_key,
    maps_key,
    path_segment,
    probes_key,
    projection_key,
    similarity_key,
    streams_key,
)
from cross_lora_core.migration.ladder import (
    DATA_FREE,
    TRAINING_OFF,
    Ladder,
    LeftOut,
    PairFacts,
    build_ladder,
    possible_rungs,
)
from cross_lora_core.migration.landings import Landing, effect_landings, refine_landings
from cross_lora_core.migration.layers import (
    ModuleFactors,
    ModuleMeasure,
    Moving,
    Projected,
    align_landings,
    anchor_rows,
    factorize_layers,
    project_landings,
)
from cross_lora_core.migration.maps import MapFit, ModuleMaps, carry, input_site
from cross_lora_core.migration.methods import METHOD_NEEDS, Method, MethodNeeds
from cross_lora_core.migration.outcome import CandidateOutcome, ItemOutcome, MigrationOutcome
from cross_lora_core.migration.plan import Plan, PlannedItem, PlannedTarget, Skipped
from cross_lora_core.migration.planning import make_plan
from cross_lora_core.migration.refs import AdapterCandidate, AdapterRef, BaseRef, base_ref
from cross_lora_core.migration.request import MigrationRequest, TransferOptions, short_name
from cross_lora_core.migration.resolve import EVALUATION_FILE, find_adapters, find_base, register_base
from cross_lora_core.migration.rounding import round_projected
from cross_lora_core.migration.similarity import RELATED, BaseSimilarity, base_similarity
from cross_lora_core.migration.sources import FactorObject, FactorSource
from cross_lora_core.migration.spec import (
    FactorSpec,
    MapSpec,
    ProbeSpec,
    RefineSpec,
    StreamSpec,
    TransferSpec,
    content_digest,
)

__all__ = [
    "DATA_FREE",
    "EVALUATION_FILE",
    "METHOD_NEEDS",
    "RELATED",
    "TRAINING_OFF",
    "AdapterCandidate",
    "AdapterRef",
    "Alias",
    "BaseRef",
    "BaseSimilarity",
    "CandidateOutcome",
    "Estimate",
    "FactorObject",
    "FactorSource",
    "FactorSpec",
    "GroupFile",
    "ItemOutcome",
    "Ladder",
    "Landing",
    "LeftOut",
    "MapFit",
    "MapSpec",
    "Method",
    "MethodNeeds",
    "MigrationOutcome",
    "MigrationRequest",
    "ModuleFactors",
    "ModuleMaps",
    "ModuleMeasure",
    "Moving",
    "PairFacts",
    "Plan",
    "PlannedItem",
    "PlannedTarget",
    "ProbeSpec",
    "Projected",
    "RefineSpec",
    "Skipped",
    "StreamSpec",
    "TransferOptions",
    "TransferSpec",
    "adapter_prefix",
    "alias_key",
    "align_landings",
    "alignment_key",
    "anchor_rows",
    "base_ref",
    "base_similarity",
    "build_ladder",
    "carry",
    "content_digest",
    "effect_landings",
    "estimate_plan",
    "factorize_layers",
    "factors_key",
    "find_adapters",
    "find_base",
    "input_site",
    "item_output_bytes",
    "make_plan",
    "maps_key",
    "path_segment",
    "possible_rungs",
    "probes_key",
    "project_landings",
    "projection_key",
    "read_alias",
    "read_alignment",
    "read_factors",
    "read_maps",
    "read_projections",
    "read_streams",
    "read_training",
    "refine_landings",
    "register_base",
    "round_projected",
    "short_name",
    "similarity_key",
    "streams_key",
    "write_alignments",
    "write_factors",
    "write_maps",
    "write_projections",
    "write_streams",
]
