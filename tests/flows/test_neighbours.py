"""Which items of a fleet are projected together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import flows.neighbours as module
from flows.neighbours import with_neighbours


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSS_LORA_WORKERS", "2")


def fleet_of(count: int, targets: tuple[str, ...] = ("t",), groups: int = 2) -> tuple[Any, list[Any]]:
    """A plan and items; each adapter goes to every target."""
    items = [
        SimpleNamespace(
            item_id=10 * adapter + number,
            planned=SimpleNamespace(name=f"{adapter}{target}", target=SimpleNamespace(digest=target)),
        )
        for adapter in range(count)
        for number, target in enumerate(targets)
    ]
    return SimpleNamespace(target_of=lambda _: SimpleNamespace(groups=range(groups))), items


def told(plan: Any, items: list[Any]) -> list[tuple[str, list[str] | None]]:
    return [
        (item.planned.name, None if beside is None else [one.name for one in beside])
        for item, beside in with_neighbours(plan, items)
    ]


def test_a_few_that_follow_each_other_are_together(monkeypatch):
    monkeypatch.setattr(module, "ADAPTERS_TOGETHER", 3)
    assert told(*fleet_of(5)) == [
        ("0t", ["1t", "2t"]),
        ("1t", ["2t"]),
        ("2t", []),
        ("3t", ["4t"]),
        ("4t", []),
    ]


def test_only_items_of_one_target_are_together():
    assert told(*fleet_of(2, ("t", "u"))) == [("0t", ["1t"]), ("0u", ["1u"]), ("1t", []), ("1u", [])]


def test_workers_do_not_wait_for_each_other_where_there_are_more_of_them_than_groups(monkeypatch):
    monkeypatch.setenv("CROSS_LORA_WORKERS", "3")
    assert all(beside is None for _, beside in told(*fleet_of(3)))


def test_a_cluster_does_every_item_by_itself(monkeypatch):
    monkeypatch.setenv("CROSS_LORA_TASK_RUNNER", "dask")
    assert all(beside is None for _, beside in told(*fleet_of(3)))
