"""Every package says what is public, and says the truth."""

from __future__ import annotations

import importlib
import pickle

import pytest

from cross_lora_core import errors

PACKAGES = [
    "algebra",
    "models",
    "adapters",
    "storage",
    "catalog",
    "evaluation",
    "responses",
    "training",
    "migration",
    "reporting",
    "registry",
    "experiments",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_names_exist_and_are_sorted_sets(name: str) -> None:
    package = importlib.import_module(f"cross_lora_core.{name}")
    assert package.__doc__
    assert len(set(package.__all__)) == len(package.__all__)
    assert all(hasattr(package, one) for one in package.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_survives_pickling_and_says_all_four_things(name: str) -> None:
    error = getattr(errors, name)("a number", "a word", "line 3", "Write a number.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == "expected a number, got a word (in line 3). Write a number."
    assert again.retryable == isinstance(again, errors.RetryableError)


def test_the_error_tree_in_the_docstring_is_complete() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)
