"""The step loop: what is interrupted goes on to the same end, and what cannot go on says why."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from cross_lora_core.errors import ConfigurationError, ObjectCorrupted, TrainingDiverged
from cross_lora_core.training import Checkpoint, TrainingRecipe, batch_rows, run_steps

RECIPE = TrainingRecipe(steps=12, learning_rate=0.05, warmup_steps=3, weight_decay=0.01)
TARGET = torch.linspace(-1, 1, 6).reshape(2, 3)


class Interrupted(Exception):
    pass


def fresh() -> dict[str, torch.Tensor]:
    return {"a": torch.zeros(2, 3, requires_grad=True), "b": torch.ones(3, requires_grad=True)}


def loss_of(parameters, *, stop_at: int | None = None):
    """A loss with noise of its own: what a resumed run draws must be what the first would have drawn."""

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise Interrupted
        noisy = parameters["a"] * parameters["b"] + 0.1 * torch.randn(2, 3)
        return (noisy - TARGET).pow(2).sum()

    return loss


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole = fresh()
    expected = run_steps(whole, loss_of(whole), RECIPE)
    checkpoint = Checkpoint(tmp_path / "kept", "mine", every=5)
    broken = fresh()
    with pytest.raises(Interrupted):
        run_steps(broken, loss_of(broken, stop_at=7), RECIPE, checkpoint=checkpoint)
    resumed = fresh()
    torch.manual_seed(99)  # of no consequence
    run = run_steps(resumed, loss_of(resumed), RECIPE, checkpoint=checkpoint)
    assert run.losses == expected.losses
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert run.last_loss < run.first_loss


def test_a_budget_ends_a_call_and_the_next_goes_on(tmp_path):
    whole = fresh()
    expected = run_steps(whole, loss_of(whole), RECIPE)
    checkpoint = Checkpoint(tmp_path, every=100)
    runs = []
    while not runs or runs[-1].budget_ended:
        parameters = fresh()
        runs.append(
            run_steps(parameters, loss_of(parameters), RECIPE, checkpoint=checkpoint, budget_seconds=0)
        )
    assert [run.steps for run in runs] == list(range(1, 13))
    assert [run.seconds for run in runs] == sorted(run.seconds for run in runs)
    assert runs[-1].losses == expected.losses
    assert checkpoint.seconds == runs[-1].seconds
    again = run_steps(fresh(), loss_of(fresh(), stop_at=0), RECIPE, checkpoint=checkpoint)
    assert again == runs[-1]  # nothing left to do, and nothing done


def test_parts_of_a_loss_are_summed(tmp_path):
    whole, parts = fresh(), fresh()
    run = run_steps(whole, loss_of(whole), RECIPE)

    def in_parts(step: int):
        noise = 0.1 * torch.randn(2, 3)
        for row in range(2):
            noisy = parts["a"][row] * parts["b"] + noise[row]
            yield (noisy - TARGET[row]).pow(2).sum()

    got = run_steps(parts, in_parts, RECIPE)
    torch.testing.assert_close(torch.tensor(got.losses), torch.tensor(run.losses))
    torch.testing.assert_close(parts["a"], whole["a"])


def test_progress_is_told():
    told = []
    parameters = fresh()
    run = run_steps(
        parameters, loss_of(parameters), RECIPE, tell=lambda done, loss: told.append((done, loss))
    )
    assert told == list(enumerate(run.losses, 1))


def test_a_loss_that_is_not_finite_is_refused_and_changes_nothing():
    parameters = fresh()
    with pytest.raises(TrainingDiverged, match=r"step 1 of 12.*learning rate"):
        run_steps(parameters, lambda step: parameters["a"].sum() / 0.0, RECIPE)
    assert torch.equal(parameters["a"], fresh()["a"])


def test_a_gradient_that_is_not_finite_is_refused_and_changes_nothing():
    parameters = fresh()
    with pytest.raises(TrainingDiverged, match="gradient"):
        run_steps(parameters, lambda step: parameters["a"].abs().sqrt().sum(), RECIPE)
    assert torch.equal(parameters["a"], fresh()["a"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": replace(RECIPE, learning_rate=0.1)}, "recipe"),
        ({"identity": "another's"}, "another's"),
        ({"parameters": {"a": torch.zeros(2, 2, requires_grad=True)}}, r"\[2, 2\]"),
    ],
)
def test_another_trainings_checkpoint_is_refused(tmp_path, change, said):
    parameters = fresh()
    run_steps(parameters, loss_of(parameters), RECIPE, checkpoint=Checkpoint(tmp_path, "mine"))
    mine = Checkpoint(tmp_path, change.get("identity", "mine"))
    with pytest.raises(ConfigurationError, match=said):
        run_steps(
            change.get("parameters", fresh()),
            loss_of(parameters),
            change.get("recipe", RECIPE),
            checkpoint=mine,
        )


def test_a_spoiled_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ObjectCorrupted, match="Delete it"):
        run_steps(fresh(), loss_of(fresh()), RECIPE, checkpoint=Checkpoint(tmp_path))


def test_a_checkpoint_is_one_file_of_tensors_and_json(tmp_path):
    parameters = fresh()
    run = run_steps(parameters, loss_of(parameters), RECIPE, checkpoint=Checkpoint(tmp_path, every=1))
    (file,) = tmp_path.iterdir()
    assert {"a#parameter", "a#exp_avg", "a#exp_avg_sq", "b#step"} <= load_file(file).keys()
    header = file.read_bytes()[8:]
    size = int.from_bytes(file.read_bytes()[:8], "little")
    numbers = json.loads(json.loads(header[:size])["__metadata__"]["numbers"])
    assert numbers["losses"] == list(run.losses)


def test_rate_rises_and_falls():
    recipe = TrainingRecipe(steps=10, learning_rate=1.0, warmup_steps=4)
    assert [round(recipe.rate(step), 3) for step in range(10)] == [
        0.25, 0.5, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1,
    ]  # fmt: skip
    assert replace(recipe, schedule="constant", warmup_steps=0).rate(9) == 1.0


@pytest.mark.parametrize(
    "field",
    [{"steps": 0}, {"batch": 0}, {"learning_rate": float("nan")}, {"seed": -1}, {"schedule": "cosine"}],
)
def test_recipes_nothing_can_be_trained_with(field):
    with pytest.raises(ConfigurationError, match=next(iter(field))):
        TrainingRecipe(**field)


def test_every_row_comes_up_before_any_comes_again():
    drawn = [index for step in range(5) for index in batch_rows(10, 4, 3, step)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert batch_rows(10, 4, 3, 1) == drawn[4:8]
