"""`auto` on pico fleets: what is tried, what is chosen, what is kept, and that it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import ObjectNotFound
from cross_lora_core.migration import TRAINING_OFF, Method, MigrationOutcome, MigrationRequest
from cross_lora_core.settings import load_settings
from flows.cli import app
from flows.migrate_fleet import migrate_fleet

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]


@pytest.fixture
def two_rungs(monkeypatch):
    """A ladder of two methods between bases of other widths."""
    monkeypatch.setattr("cross_lora_core.migration.ladder.DATA_FREE", (Method.CROSS_LORA, Method.INTERPOLATE))


def auto(fleet, *names: str, target: Path | None = None, **changes) -> MigrationRequest:
    values = {
        "source": str(fleet.source),
        "targets": [str(target or fleet.target)],
        "adapters": [fleet.adapter(name) for name in names],
        "rank": 12,
        "method": "auto",
    }
    return MigrationRequest.model_validate(values | changes)


def evidence_of(outcome: MigrationOutcome, adapter: str) -> dict:
    with Catalog.open(load_settings().catalog_url).begin() as work:
        (item,) = [one for one in work.items_of(outcome.migration) if one.adapter_name == adapter]
        return work.verdict_of(item.id).evidence


@pytest.mark.usefixtures("two_rungs")
def test_a_fleet_is_chosen_for_one_by_one(fleet, home):
    outcome = migrate_fleet(auto(fleet, "measured", "plain", "empty", "broken"))
    items = {one.adapter: one for one in outcome.items}
    assert outcome.method == "auto"
    assert items["broken"].verdict == "refused"
    assert (items["empty"].verdict, items["empty"].method) == ("no_effect", "cross-lora")
    assert (items["plain"].verdict, items["plain"].method) == ("unverified", "cross-lora")
    assert [one.method for one in items["plain"].candidates] == ["cross-lora"]
    assert items["measured"].verdict == "needs_retraining"  # a random update of a random base can do no good
    assert [one.method for one in items["measured"].candidates] == ["cross-lora", "interpolate"]
    assert len({one.output for one in items["measured"].candidates}) == 2
    evidence = evidence_of(outcome, "measured")
    assert evidence["confidence"] == pytest.approx(0.995)
    assert all(one["improvement"] and one["means"]["random"] for one in evidence["candidates"])
    assert evidence["left_out"] == [
        {"method": "copy", "reason": "modules have other shapes in the target"},
        {"method": "refine", "reason": TRAINING_OFF},
    ]
    assert items["measured"].reason.endswith(f"refine was not tried: {TRAINING_OFF}")
    for one in items["measured"].candidates:
        told = json.loads((Path(one.output) / "migration.json").read_text())
        assert told["method"] == one.method
    page = Path(outcome.report).read_text()
    assert "needs_retraining" in page
    assert "<td>interpolate</td>" in page
    assert "copy is left out: modules have other shapes" in page


@pytest.mark.usefixtures("two_rungs")
def test_the_output_is_the_best_that_surely_does_no_harm(fleet, monkeypatch):
    """The same evidence, once as it is and once with every loss on the target raised, candidate by candidate."""
    import tasks.choose_candidate as module

    real = module.gather_evidence

    def harming(*methods: str):
        def gather(plan, *rest):
            found = real(plan, *rest)
            if plan.spec.method in methods:
                worse = [one + 0.5 for one in found.losses.target]
                return type(found)(found.problems, found.function, replace(found.losses, migrated=worse))
            better = [one - 1e-6 for one in found.losses.target]
            return type(found)(found.problems, found.function, replace(found.losses, migrated=better))

        return gather

    monkeypatch.setattr(module, "gather_evidence", harming("cross-lora"))
    (kept,) = migrate_fleet(auto(fleet, "measured")).items
    assert (kept.verdict, kept.method) == ("needs_retraining", "interpolate")
    assert kept.output is not None
    monkeypatch.setattr(module, "gather_evidence", harming("cross-lora", "interpolate"))
    request = auto(fleet, "measured", output_dtype="bfloat16")
    (none,) = migrate_fleet(request).items
    assert (none.status, none.verdict, none.output) == ("done", "needs_retraining", None)
    assert "surely does harm" in none.reason
    monkeypatch.setattr(module, "gather_evidence", lambda *_: pytest.fail("measured again"))
    assert migrate_fleet(request).items == (none,)
    refused = CliRunner().invoke(
        app, ["promote", "measured", "--target", "new-gemma", "--accept", "needs_retraining", "--json"]
    )
    assert refused.exit_code == 1
    assert "no output to promote" in json.loads(refused.stdout)["message"]
    taken = CliRunner().invoke(
        app,
        ["promote", "measured", "--target", "new-gemma", "--accept", "needs_retraining", "--migration", "1"],
    )
    assert taken.exit_code == 0, taken.output


def test_the_identity_hop_is_a_copy_and_nothing_else_is_tried(fleet):
    outcome = migrate_fleet(auto(fleet, "plain", target=fleet.source))
    (one,) = outcome.items
    assert (one.verdict, one.method) == ("copied", "copy")
    left = evidence_of(outcome, "plain")["left_out"]
    assert [(one["method"], "a copy is exact" in one["reason"]) for one in left] == [
        ("effect", True),
        ("cross-lora", True),
        ("refine", True),
    ]


def test_bases_of_one_shape_trained_apart_are_not_copied_between(fleet, home):
    outcome = migrate_fleet(auto(fleet, "plain", target=fleet.sibling))
    (one,) = outcome.items
    assert (one.verdict, one.method) == ("unverified", "effect")
    evidence = evidence_of(outcome, "plain")
    assert "not related" in evidence["left_out"][0]["reason"]
    assert abs(evidence["similarity"]["cosine"]) < 0.1
    assert len(list((home / "store" / "similarities").rglob("*.json"))) == 1


@pytest.mark.usefixtures("two_rungs")
def test_a_second_run_tries_nothing_again_and_another_ladder_is_another_migration(fleet, monkeypatch):
    request = auto(fleet, "measured", "plain")
    first = migrate_fleet(request)

    def never(*_args, **_kwargs):
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        for name in ("factorize_base.factorize_layers", "project_adapter.project_landings"):
            patched.setattr(f"tasks.{name}", never)
        patched.setattr("tasks.evaluate_adapter.row_losses", never)
        patched.setattr("cross_lora_core.migration.similarity.algebra.row_cosines", never)
        assert migrate_fleet(request) == first
    monkeypatch.setattr("cross_lora_core.migration.ladder.DATA_FREE", (Method.INTERPOLATE,))
    assert migrate_fleet(request).migration != first.migration


BREAKS = ObjectNotFound("a stored object", "none", "the store", "Look after the disk.")


@pytest.mark.usefixtures("two_rungs")
def test_a_rung_that_breaks_is_left_out_and_the_next_run_does_only_what_is_missing(fleet, monkeypatch):
    import tasks.publish_adapter as module

    real, written = module.write_adapter, []

    def break_one(folder, base, updates, **options):
        method = options["provenance"]["method"]
        if method == "interpolate" and not written.count("broken"):
            written.append("broken")
            raise BREAKS
        written.append(method)
        return real(folder, base, updates, **options)

    monkeypatch.setattr(module, "write_adapter", break_one)
    outcome = migrate_fleet(auto(fleet, "measured"))
    (broken,) = outcome.items
    assert (broken.status, broken.verdict, broken.method) == ("done", "needs_retraining", "cross-lora")
    assert broken.output is not None
    assert [one.method for one in broken.candidates] == ["cross-lora"]
    assert "interpolate is left out, because it broke (ObjectNotFound" in broken.reason
    left = {one["method"]: one["reason"] for one in evidence_of(outcome, "measured")["left_out"]}
    assert "Look after the disk" in left["interpolate"]
    assert "interpolate is left out: it broke" in Path(outcome.report).read_text()
    (mended,) = migrate_fleet(auto(fleet, "measured")).items
    assert [one.method for one in mended.candidates] == ["cross-lora", "interpolate"]
    assert "broke" not in mended.reason
    assert sorted(written) == ["broken", "cross-lora", "interpolate"]
    assert migrate_fleet(auto(fleet, "measured")).items == (mended,)


@pytest.mark.usefixtures("two_rungs")
def test_what_breaks_before_a_rung_begins_breaks_that_rung_alone(fleet, monkeypatch):
    def break_it(*_arguments):
        raise BREAKS

    monkeypatch.setattr("tasks.align_bases.align_landings", break_it)  # of the two, cross-lora alone aligns
    (item,) = migrate_fleet(auto(fleet, "measured")).items
    assert [one.method for one in item.candidates] == ["interpolate"]
    assert "cross-lora is left out, because it broke (ObjectNotFound" in item.reason


@pytest.mark.usefixtures("two_rungs")
def test_an_item_fails_where_every_rung_breaks(fleet, monkeypatch):
    def break_it(_folder, _base, _updates, **options):
        raise ObjectNotFound("a stored object", options["provenance"]["method"], "the store", "Look.")

    monkeypatch.setattr("tasks.publish_adapter.write_adapter", break_it)
    (item,) = migrate_fleet(auto(fleet, "measured")).items
    assert (item.status, item.verdict, item.output, item.candidates) == ("failed", "failed", None, ())
    assert "cross-lora: ObjectNotFound" in item.reason
    assert "interpolate: ObjectNotFound" in item.reason


@pytest.mark.usefixtures("two_rungs")
def test_the_plan_says_what_would_be_tried_and_why_not(fleet, home):
    arguments = ["plan", "--source", str(fleet.source), "--target", str(fleet.sibling), "--rank", "12"]
    arguments += [
        "--adapter",
        fleet.adapter("measured"),
        "--adapter",
        fleet.adapter("plain"),
        "--method",
        "auto",
    ]
    described = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    items = {one["adapter"]: one for one in described["items"]}
    assert items["measured"]["rungs"] == ["cross-lora", "interpolate"]
    assert items["plain"]["rungs"] == ["cross-lora"]
    assert items["measured"]["output_bytes"] == 2 * items["plain"]["output_bytes"]
    assert described["estimate"]["factor_bytes"] > 0
    assert not (home / "store" / "similarities").exists()
    text = CliRunner().invoke(app, arguments).output.replace("\n", " ")
    assert "tries cross-lora, interpolate" in text
    assert "copy is not tried: the bases are not related" in text
    assert "interpolate is not tried: no evaluation file" in text


@pytest.mark.usefixtures("two_rungs")
def test_the_table_shows_each_method_beside_the_control(fleet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    arguments = ["migrate", "--source", str(fleet.source), "--target", str(fleet.target), "--rank", "12"]
    done = CliRunner().invoke(app, [*arguments, "--adapter", fleet.adapter("measured"), "--method", "auto"])
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("measured ")]
    assert "needs_retraining" in rows[0]
    assert [("cross-lora" in row, "interpolate" in row) for row in rows[1:3]] == [
        (True, False),
        (False, True),
    ]
    assert "random update of the same size" in done.output
