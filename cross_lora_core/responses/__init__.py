"""How models respond to strings: what two bases, or a base with and without an adapter, have in common.

    strings = probe_strings(ProbeKind.GENERATED, 100, source=source, target=target, loaded=ours)
    for batch in pair_batches(ours, theirs, strings):              # positions that mean the same
        here = respond(ours, batch.source, modules=[source.linear(0, Role.q)])
        there = respond(theirs, batch.target, layers=layer_paths(target))
        moments.add(there.boundaries[1], here.outputs[0, Role.q])  # keep second moments only

`ours` and `theirs` are `LoadedBase`s, with or without an adapter on.
"""

from cross_lora_core.responses.frontier import Frontier, ModuleRun, with_updates
from cross_lora_core.responses.matching import matched_positions, spread
from cross_lora_core.responses.pairing import PairedBatch, TokenBatch, pair_batches, token_spans
from cross_lora_core.responses.probes import ProbeKind, probe_strings, text_strings, token_strings
from cross_lora_core.responses.sampling import sample_strings
from cross_lora_core.responses.streams import Responses, layer_paths, respond

__all__ = [
    "Frontier",
    "ModuleRun",
    "PairedBatch",
    "ProbeKind",
    "Responses",
    "TokenBatch",
    "layer_paths",
    "matched_positions",
    "pair_batches",
    "probe_strings",
    "respond",
    "sample_strings",
    "spread",
    "text_strings",
    "token_spans",
    "token_strings",
    "with_updates",
]
