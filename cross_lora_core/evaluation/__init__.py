"""What an adapter does on the real target, measured through PEFT, and what may be said of it.

with loaded_base(folder, digest, dtype, device) as loaded:
    check = check_function(loaded, adapter)            # do outputs change at all?
    with loaded.with_adapter(adapter):
        losses = row_losses(loaded, rows)              # nats per character
decide(Evidence(problems, check, Losses(...)))         # migrated? says why
        matches = exact_matches(loaded, rows)          # does it write the completion by itself?
figures(rows, losses, losses_of_the_base)              # means, standard errors, intervals
score(matches, matches_of_the_base)                    # the same of what is right or wrong
choose({"copy": Evidence(...), "cross-lora": ...})     # the best of several, or needs_retraining
"""

from cross_lora_core.evaluation.benchmarks import (
    BENCHMARK_METRICS,
    BENCHMARKS,
    benchmark_hits,
    benchmark_rows,
    harness,
)
from cross_lora_core.evaluation.choices import each_choice
from cross_lora_core.evaluation.choosing import Choice, choose
from cross_lora_core.evaluation.environment import environment
from cross_lora_core.evaluation.figures import Figures, Mean, Score, figures, score
from cross_lora_core.evaluation.function import PROBES, FunctionCheck, check_function
from cross_lora_core.evaluation.generation import exact_matches, generated_texts
from cross_lora_core.evaluation.loading import BaseToLoad, Landing, LoadedBase, loaded_base, loaded_bases
from cross_lora_core.evaluation.losses import row_losses, row_tokens
from cross_lora_core.evaluation.rows import EvaluationRow, dataset_digest, read_rows
from cross_lora_core.evaluation.statistics import (
    GapRecovered,
    Interval,
    gap_recovered,
    paired_bootstrap,
    standard_error,
)
from cross_lora_core.evaluation.verdicts import PROMOTABLE, Decision, Evidence, Losses, Verdict, decide

__all__ = [
    "BENCHMARKS",
    "BENCHMARK_METRICS",
    "PROBES",
    "PROMOTABLE",
    "BaseToLoad",
    "Choice",
    "Decision",
    "EvaluationRow",
    "Evidence",
    "Figures",
    "FunctionCheck",
    "GapRecovered",
    "Interval",
    "Landing",
    "LoadedBase",
    "Losses",
    "Mean",
    "Score",
    "Verdict",
    "benchmark_hits",
    "benchmark_rows",
    "check_function",
    "choose",
    "dataset_digest",
    "decide",
    "each_choice",
    "environment",
    "exact_matches",
    "figures",
    "gap_recovered",
    "generated_texts",
    "harness",
    "loaded_base",
    "loaded_bases",
    "paired_bootstrap",
    "read_rows",
    "row_losses",
    "row_tokens",
    "score",
    "standard_error",
]
