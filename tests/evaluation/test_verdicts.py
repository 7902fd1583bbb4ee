from __future__ import annotations

from dataclasses import replace

import pytest

from cross_lora_core.evaluation import Evidence, FunctionCheck, Landing, Losses, Verdict, decide
from tests.support.measured import WORKS, losses


def judge(measured: Losses | None, **changes) -> tuple[Verdict, str]:
    evidence = {"problems": (), "function": WORKS, "losses": measured}
    decision = decide(Evidence(**(evidence | changes)))
    return decision.verdict, decision.reason


def test_an_improvement_beyond_chance_and_controls_is_migrated():
    decision = decide(Evidence((), WORKS, losses(0.2)))
    assert decision.verdict is Verdict.migrated
    assert decision.recovered == pytest.approx(0.4, abs=0.05)
    assert decision.means is not None
    assert set(decision.means) == {
        "source base",
        "source adapter",
        "target base",
        "zero",
        "random",
        "migrated",
    }
    assert "the loss falls by" in decision.reason
    assert decision.as_dict()["verdict"] == "migrated"


def test_the_same_from_a_plain_copy_is_copied():
    assert judge(losses(0.2), copied=True)[0] is Verdict.copied


def test_a_rise_is_harmful():
    verdict, reason = judge(losses(-0.1))
    assert verdict is Verdict.harmful
    assert "rises" in reason


def test_what_chance_explains_is_no_effect():
    verdict, reason = judge(losses(0.03, noise=0.4))
    assert verdict is Verdict.no_effect
    assert "told from chance" in reason


def test_certain_but_tiny_is_no_effect():
    verdict, reason = judge(losses(0.002, noise=0.0001))
    assert verdict is Verdict.no_effect
    assert "not surely more than" in reason
    assert judge(losses(-0.002, noise=0.0001))[0] is Verdict.no_effect


def test_no_better_than_random_is_no_effect():
    verdict, reason = judge(losses(0.1, random=0.12))
    assert verdict is Verdict.no_effect
    assert "random update of the same size" in reason


def test_without_rows_nothing_is_proven():
    for measured in (None, losses(0.2, rows=5)):
        for copied in (False, True):
            assert judge(measured, copied=copied)[0] is Verdict.unverified


def test_a_copy_onto_the_same_weights_is_exact():
    assert judge(None, copied=True, same_base=True)[0] is Verdict.copied
    assert judge(None, copied=False, same_base=True)[0] is Verdict.unverified


def test_what_changes_nothing_is_no_effect_whatever_the_rows_say():
    still = FunctionCheck(Landing(4, 4, 0), 0.0, 0.0)
    verdict, reason = judge(losses(0.2), function=still)
    assert verdict is Verdict.no_effect
    assert "changes nothing" in reason


@pytest.mark.parametrize("landing", [Landing(4, 0, 4), Landing(4, 3, 0), Landing(4, 4, 1)])
def test_modules_that_did_not_land_are_a_failure(landing):
    verdict, reason = judge(losses(0.2), function=FunctionCheck(landing, 0.5, 0.1))
    assert verdict is Verdict.failed
    assert f"{landing.landed} of 4" in reason


def test_structure_comes_first():
    assert judge(losses(0.2), problems=("3 of 4 modules landed",)) == (
        Verdict.failed,
        "structure: 3 of 4 modules landed",
    )
    assert judge(losses(0.2), function=None)[0] is Verdict.failed


def test_an_instrument_that_is_not_neutral_is_not_believed():
    measured = losses(0.2)
    crooked = Losses(
        measured.target, measured.migrated, [one + 1e-6 for one in measured.zero], measured.random
    )
    assert judge(crooked)[0] is Verdict.failed


def test_without_a_source_gain_the_floor_is_a_share_of_the_loss():
    measured = losses(0.2)
    alone = Losses(measured.target, measured.migrated, measured.zero, measured.random)
    decision = decide(Evidence((), WORKS, alone))
    assert decision.verdict is Verdict.migrated
    assert decision.recovered is None
    assert decision.floor == pytest.approx(0.011, abs=0.002)


@pytest.mark.parametrize("kind", ["harmful", "empty", "random"])
def test_bad_adapters_are_never_called_migrated(kind):
    """400 seeded trials a kind, with little and much noise."""
    for seed in range(400):
        noise = 0.3 if seed % 2 else 0.05
        effect = {"harmful": -0.08, "empty": 0.0, "random": 0.02}[kind]
        control = 0.02 if kind == "random" else 0.0
        verdict, _ = judge(losses(effect, random=control, noise=noise, seed=seed))
        assert verdict not in (Verdict.migrated, Verdict.copied), (seed, noise)


def test_good_adapters_are_found():
    found = [judge(losses(0.15, noise=0.1, seed=seed))[0] for seed in range(200)]
    assert found.count(Verdict.migrated) >= 195


def test_undefined_losses_are_named_and_are_no_verdict():
    measured = losses(0.2)
    for label, name in (("migrated", "migrated"), ("source adapter", "source_adapter")):
        spoiled = replace(measured, **{name: [float("nan"), *getattr(measured, name)[1:]]})
        verdict, reason = judge(spoiled)
        assert verdict is Verdict.failed
        assert reason == f"losses of {label} are not finite: nothing can be told"
