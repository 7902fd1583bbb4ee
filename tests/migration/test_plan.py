from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import cross_lora_core.migration.planning as planning
from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import ConfigurationError, RecordConflict, StoreUnavailable
from cross_lora_core.migration import (
    AdapterCandidate,
    FactorSource,
    MigrationRequest,
    Plan,
    TransferSpec,
    adapter_prefix,
    alignment_key,
    factors_key,
    find_adapters,
    find_base,
    make_plan,
    path_segment,
    projection_key,
    register_base,
    short_name,
)
from cross_lora_core.models import BaseModel, Role, open_base
from tests.support.fleets import make_adapter, poison, write_rows
from tests.support.pico_models import build_pico

GROUP_BYTES = 2**17


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, BaseModel]:
    root = tmp_path_factory.mktemp("bases")
    return {
        "old": open_base(build_pico("llama", root / "old", layers=5)),
        "new": open_base(build_pico("gemma3_text", root / "new", width=48, layers=3, seed=1)),
        "gateless": open_base(build_pico("opt", root / "gateless", layers=5)),
    }


@pytest.fixture(scope="module")
def adapters(bases, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    write_rows(make_adapter(bases["old"].location, root / "measured"))
    make_adapter(bases["old"].location, root / "wide", target_modules="all-linear")
    poison(make_adapter(bases["old"].location, root / "broken"))
    return root


def spec(**changes) -> TransferSpec:
    request = MigrationRequest.model_validate({"source": "s", "targets": ["t"], "rank": 12} | changes)
    return TransferSpec.from_request(request)


def planned(bases, adapters: Path, *names: str, target: str = "new", **changes) -> Plan:
    candidates = [AdapterCandidate(name, str(adapters / name)) for name in names]
    return make_plan(bases["old"], [bases[target]], candidates, spec(**changes), GROUP_BYTES)


def test_every_target_module_with_a_source_lands_and_the_rest_is_said(bases, adapters):
    plan = planned(bases, adapters, "wide")
    (item,) = plan.items
    assert item.refusal is None
    assert plan.targets[0].layer_map == (0, 2, 4)
    assert {(one.target_layer, one.source_layer) for one in item.landings} == {(0, 0), (1, 2), (2, 4)}
    assert len(item.landings) == 3 * 7
    assert len(item.skipped) == 2 * 7
    assert {one.module for one in item.skipped} >= {
        "model.layers.1.self_attn.q_proj",
        "model.layers.3.mlp.up_proj",
    }


def test_roles_the_target_lacks_are_said(bases, adapters):
    (item,) = planned(bases, adapters, "wide", target="gateless").items
    assert Role.gate not in {one.role for one in item.landings}
    assert [one.reason for one in item.skipped] == ["gateless has no gate projection"] * 5


def test_groups_cover_every_landing_once(bases, adapters):
    plan = planned(bases, adapters, "wide")
    (item,) = plan.items
    groups = plan.targets[0].groups
    assert len(groups) > 1
    assert [one for group in groups for one in item.landings_in(group)] == list(item.landings)


def test_a_group_knows_the_objects_it_reads(bases, adapters):
    plan = planned(bases, adapters, "wide")
    target = plan.targets[0]
    for group in target.groups:
        source = FactorSource.of(plan, target, group)
        covered = {layer for one in source.source for layer in one.group.layers}
        assert {target.layer_map[layer] for layer in group.layers} <= covered
        assert [one.group for one in source.target] == [group]
    assert FactorSource.of(
        planned(bases, adapters, "wide", method="interpolate"), target, groups_first(target)
    ) == (FactorSource((), ()))


def groups_first(target):
    return target.groups[0]


def test_a_bad_adapter_is_an_item_not_an_exception(bases, adapters):
    plan = planned(bases, adapters, "broken", "wide", "absent")
    assert [bool(item.refusal) for item in plan.items] == [True, False, True]
    assert plan.items[0].adapter.digest == ""


def test_adapters_that_are_read_at_once_are_planned_in_their_order(bases, adapters):
    names = ["wide", "broken", "measured", "absent"] * 3
    candidates = [AdapterCandidate(name, str(adapters / name)) for name in names]
    common = bases["old"], [bases["new"], bases["gateless"]], candidates, spec(), GROUP_BYTES
    one, four = make_plan(*common), make_plan(*common, readers=4)
    assert four == one
    assert [item.adapter.name for item in four.items[::2]] == names


def test_what_stops_a_reading_stops_the_plan(bases, adapters, monkeypatch):
    """A store that does not answer is no fault of an adapter; those that wait are not read any more."""
    read = []

    def unreachable(location, name):
        read.append(name)
        raise StoreUnavailable("an answer", "none", str(location), "Try again.")

    monkeypatch.setattr(planning, "read_adapter", unreachable)
    with pytest.raises(StoreUnavailable):
        planned(bases, adapters, *["wide"] * 50)
    assert len(read) < 50


def test_plans_are_small_values_that_travel(bases, adapters):
    plan = planned(bases, adapters, "wide", "measured")
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert again.request_digest == plan.request_digest
    assert len(pickle.dumps(plan)) < 20_000


def test_the_request_digest_is_of_the_work(bases, adapters):
    plan = planned(bases, adapters, "wide", "measured")
    assert planned(bases, adapters, "measured", "wide").request_digest == plan.request_digest
    others = [
        planned(bases, adapters, "wide"),
        planned(bases, adapters, "wide", "measured", rank=11),
        planned(bases, adapters, "wide", "measured", method="interpolate"),
        planned(bases, adapters, "wide", "measured", target="gateless"),
        planned(bases, adapters, "wide", "measured", output_dtype="float32"),
    ]
    assert len({plan.request_digest, *(one.request_digest for one in others)}) == 6


def test_a_method_that_gives_other_numbers_now_is_another_request(bases, adapters, monkeypatch):
    before = planned(bases, adapters, "wide", method="effect").request_digest
    monkeypatch.setattr("cross_lora_core.migration.spec.EFFECT_VERSION", 99)
    assert planned(bases, adapters, "wide", method="effect").request_digest != before


def test_keys_depend_on_what_decides_the_content_and_on_nothing_else(bases, adapters):
    source, target = (
        planned(bases, adapters, "wide").source,
        planned(bases, adapters, "wide").targets[0].base,
    )
    tokens, index, copied = spec(), spec(anchor="index"), spec(method="interpolate", rank=7)
    assert alignment_key(source, target, tokens, 0, 1) != alignment_key(source, target, index, 0, 1)
    assert factors_key("d", tokens.factors, 0, 1) != factors_key("d", index.factors, 0, 1)
    assert projection_key(source, target, "a", copied, 0, 1) == projection_key(
        source, target, "a", spec(method="interpolate", rank=9), 0, 1
    )
    assert projection_key(source, target, "a", tokens, 0, 1) != projection_key(
        source, target, "a", spec(output_dtype="float32"), 0, 1
    )
    assert projection_key(source, target, "a", copied, 0, 1) == projection_key(
        source, target, "a", spec(method="interpolate", output_dtype="float32"), 0, 1
    )
    assert adapter_prefix(source, target, "x", "a", tokens) != adapter_prefix(
        source, target, "x", "a", spec(output_dtype="float32")
    )
    assert adapter_prefix(source, target, "org/x y", "a", tokens).startswith("adapters/new/org--x--y/")


def test_how_to_train_decides_what_is_trained_and_nothing_else(bases, adapters):
    plan = planned(bases, adapters, "wide")
    source, target = plan.source, plan.targets[0].base
    assert spec(refine=True, refine_steps=7).digest == spec().digest
    trained = [
        spec(method="refine"),
        spec(method="refine", refine_steps=7),
        spec(method="refine", refine_seconds=7),
    ]
    assert len({projection_key(source, target, "a", one, 0, 1) for one in trained}) == 3
    assert len({adapter_prefix(source, target, "x", "a", one) for one in trained}) == 3
    assert {one.start.digest for one in trained} == {spec(method="effect").digest}
    measured = AdapterCandidate("measured", str(adapters / "measured"), evaluation="rows.jsonl")

    def auto(**changes) -> str:
        options = spec(method="auto", **changes)
        return make_plan(bases["old"], [bases["new"]], [measured], options, GROUP_BYTES).request_digest

    requests = [auto(), auto(refine=True), auto(refine=True, refine_steps=7)]
    assert len(set(requests)) == 3
    assert auto(refine_steps=7) == auto()


@pytest.mark.parametrize(
    ("name", "segment"), [("a/b", "a--b"), ("../x", "x"), ("…", "unnamed"), ("ok-1.2_3", "ok-1.2_3")]
)
def test_names_become_safe_segments(name, segment):
    assert path_segment(name) == segment


# what people write


@pytest.fixture
def catalog(tmp_path):
    opened = Catalog.open(f"sqlite:///{tmp_path / 'c.db'}")
    yield opened
    opened.close()


def test_bases_are_found_by_name_folder_and_content(bases, catalog, tmp_path):
    with catalog.begin() as work:
        register_base(work, open_base(bases["old"].location, name="org/old"))
        assert find_base(work, "org/old").location == bases["old"].location
        assert find_base(work, str(bases["old"].location)).name == "org/old"
        assert find_base(work, str(bases["new"].location)).name == "new"


def test_a_registered_base_whose_folder_changed_is_refused(catalog, tmp_path):
    folder = build_pico("llama", tmp_path / "base", seed=1)
    with catalog.begin() as work:
        register_base(work, open_base(folder, name="base"))
    build_pico("llama", folder, seed=2)
    with pytest.raises(RecordConflict, match="Restore the folder"), catalog.begin() as work:
        find_base(work, "base")


def test_adapters_are_found_by_name_folder_and_folder_of_folders(adapters, catalog):
    with catalog.begin() as work:
        found = find_adapters(work, "old", [str(adapters)], "/default.jsonl")
        assert [one.name for one in found] == ["broken", "measured", "wide"]
        assert [one.evaluation for one in found] == [
            "/default.jsonl",
            str(adapters / "measured" / "evaluation.jsonl"),
            "/default.jsonl",
        ]
        twice = find_adapters(work, "old", [str(adapters / "wide"), str(adapters / "wide")], None)
        assert len(twice) == 1
        with pytest.raises(ConfigurationError, match="adapters registered on old"):
            find_adapters(work, "old", [], None)


def test_bad_requests_name_the_field():
    with pytest.raises(ValueError, match="targets"):
        MigrationRequest.model_validate({"source": "s", "targets": []})
    with pytest.raises(ValueError, match="method"):
        MigrationRequest.model_validate({"source": "s", "targets": ["t"], "method": "magic"})
    with pytest.raises(ValueError, match="Extra inputs"):
        MigrationRequest.model_validate({"source": "s", "targets": ["t"], "colour": "red"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("old-llama", "old-llama"),
        ("/bases/old-llama/", "old-llama"),
        ("org/old-llama", "old-llama"),
        ("s3://bucket/bases/old-llama?endpoint=http://127.0.0.1:9/x", "old-llama"),
    ],
)
def test_a_run_is_called_after_the_last_part(text, name):
    assert short_name(text) == name


def test_what_is_equal_in_many_items_is_held_once(bases, adapters):
    plan = planned(bases, adapters, "wide", "wide", "measured")
    first, second, other = plan.items
    assert first.landings is second.landings
    assert first.skipped is second.skipped
    assert first.ladder is second.ladder is other.ladder
    assert other.landings != first.landings
