from __future__ import annotations

import pytest

from cross_lora_core.evaluation import Evidence, FunctionCheck, Interval, Landing, Verdict, choose, decide
from tests.support.measured import WORKS, losses

STILL = FunctionCheck(Landing(4, 4, 0), 0.0, 0.0)


def measured(improvement: float, *, copied: bool = False, **changes) -> Evidence:
    return Evidence((), WORKS, losses(improvement, **changes), copied=copied)


def test_the_best_that_passes_is_taken():
    choice = choose(
        {
            "copy": measured(0.1, copied=True),
            "cross-lora": measured(0.3),
            "probe": measured(0.2),
            "effect": measured(-0.2),
        }
    )
    assert (choice.name, choice.usable) == ("cross-lora", True)
    assert choice.decision.verdict is Verdict.migrated
    assert choice.decision.reason.startswith("by cross-lora, the best of 4 methods tried: the loss falls")
    assert [one.verdict for one in choice.decisions.values()] == [
        Verdict.copied,
        Verdict.migrated,
        Verdict.migrated,
        Verdict.harmful,
    ]


def test_of_equals_the_earlier_one():
    choice = choose({"copy": measured(0.2, copied=True), "cross-lora": measured(0.2)})
    assert (choice.name, choice.decision.verdict) == ("copy", Verdict.copied)


def test_trying_more_methods_widens_every_interval():
    evidence = measured(0.12, noise=0.25, seed=5)
    alone = choose({"copy": evidence})
    among = choose({"copy": evidence} | {f"other-{number}": measured(0.0) for number in range(9)})
    assert alone.confidence == pytest.approx(0.99)
    assert among.confidence == pytest.approx(0.999)
    first, second = alone.decisions["copy"].improvement, among.decisions["copy"].improvement
    assert isinstance(first, Interval)
    assert isinstance(second, Interval)
    assert second.low < first.low
    assert second.high > first.high


def test_what_passes_alone_may_not_pass_among_many():
    """The correction decides: with as many tries, chance alone brings some so far."""
    for seed in range(200):
        evidence = measured(0.08, noise=0.15, seed=seed)
        if decide(evidence).verdict is not Verdict.migrated:
            continue
        among = choose({"one": evidence} | {f"other-{number}": measured(0.0) for number in range(9)})
        if among.decision.verdict is Verdict.needs_retraining:
            return
    pytest.fail("no case was decided by the correction")


def test_when_none_passes_the_best_is_kept_to_be_taken_by_name():
    choice = choose(
        {"copy": measured(-0.3, copied=True), "cross-lora": measured(0.004), "probe": measured(0.0)}
    )
    assert (choice.name, choice.usable) == ("cross-lora", True)
    assert choice.decision.verdict is Verdict.needs_retraining
    assert "none of the methods tried (copy, cross-lora, probe) is surely better" in choice.decision.reason
    assert "best cross-lora: the loss falls by" in choice.decision.reason


def test_when_all_do_harm_nothing_is_kept():
    choice = choose({"copy": measured(-0.3, copied=True), "cross-lora": measured(-0.1)})
    assert (choice.name, choice.usable) == ("cross-lora", False)
    assert choice.decision.verdict is Verdict.needs_retraining
    assert "surely does harm, so nothing is kept" in choice.decision.reason


def test_certain_harm_that_does_not_matter_is_not_kept_either():
    choice = choose({"cross-lora": measured(-0.002, noise=0.0001)})
    assert choice.decisions["cross-lora"].verdict is Verdict.no_effect
    assert not choice.usable


def test_an_adapter_that_gains_nothing_anywhere_is_told():
    evidence = measured(0.0)
    assert evidence.losses is not None
    idle = Evidence((), WORKS, losses(0.0, gain=0.0))
    assert "on its own base cannot be told from chance" in choose({"copy": idle}).decision.reason
    assert "on its own base cannot be told" not in choose({"copy": evidence}).decision.reason


def test_an_empty_adapter_has_no_effect():
    choice = choose({"copy": Evidence((), STILL, None, copied=True), "cross-lora": Evidence((), STILL, None)})
    assert choice.decision.verdict is Verdict.no_effect
    assert choice.name == "copy"


def test_without_rows_the_first_that_lands_is_taken_unverified():
    failed = Evidence(("3 of 4 modules landed",), None, None)
    choice = choose(
        {"copy": failed, "cross-lora": Evidence((), WORKS, None), "probe": Evidence((), WORKS, None)}
    )
    assert (choice.name, choice.decision.verdict) == ("cross-lora", Verdict.unverified)


def test_a_copy_onto_the_same_weights_needs_no_rows():
    choice = choose({"copy": Evidence((), WORKS, None, copied=True, same_base=True)})
    assert (choice.name, choice.decision.verdict) == ("copy", Verdict.copied)


def test_one_that_is_broken_is_never_taken():
    broken = Evidence(("a scale that cannot be right",), None, None)
    choice = choose({"copy": broken, "cross-lora": measured(0.2)})
    assert (choice.name, choice.decision.verdict) == ("cross-lora", Verdict.migrated)
    none = choose({"copy": broken, "cross-lora": broken})
    assert (none.name, none.usable, none.decision.verdict) == (None, False, Verdict.failed)


def test_nothing_cannot_be_chosen_from():
    with pytest.raises(ValueError, match="at least one"):
        choose({})
