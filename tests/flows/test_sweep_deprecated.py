"""The sweep: what is due is started once, what is settled is left alone, what was left half done is mended."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

from cross_lora_core.errors import BaseModelError, RecordNotFound
from cross_lora_core.migration import MigrationOutcome, TransferOptions
from cross_lora_core.registry import Fact, ModelEvent, load_config
from flows.starting import start_source
from flows.sweep_deprecated import sweep_deprecated
from tasks.deprecate_bases import poll_registry
from tasks.due_migrations import claim_start, due_pairs, pair_of, running_here
from tasks.receive_delivery import keep_delivery
from tasks.register_adapters import register_adapters
from tasks.runtime import open_catalog, open_stored
from tests.support.rows import a_base, a_migration, a_result, an_adapter, an_item

pytestmark = pytest.mark.usefixtures("home")
OPTIONS = TransferOptions()
TODAY = datetime.now(UTC).date()


@pytest.fixture
def deprecated():
    """Base `old` with successor `new` and two adapters."""
    with open_catalog().begin() as work:
        old, _ = a_base(work, "old"), a_base(work, "new")
        for name in ("tickets", "logs"):
            an_adapter(work, old, name)
        work.deprecate_base("old", on=None, successor="new")


@pytest.fixture
def runs(monkeypatch):
    """Requests that would have been run here."""
    seen = []

    def run(request):
        seen.append(request)
        return MigrationOutcome(1, request.source, "cross-lora", (), None)

    monkeypatch.setattr("flows.starting.migrate_fleet", run)
    return seen


def names(pairs):
    return [(one.source, one.target, one.adapters) for one in pairs]


def settle(status: str, verdict: str, name: str = "tickets", spec=None) -> None:
    with open_catalog().begin() as work:
        old, new = work.base_named("old"), work.base_named("new")
        migration = a_migration(work, old, f"{name} {status} {spec}")
        item = an_item(work, migration, work.adapter_named(name, old.id), new)
        work.settle_item(item.id, status=status, verdict=verdict, reason="x", evidence={})


def test_what_is_due(deprecated):
    assert names(due_pairs(OPTIONS)) == [("old", "new", ("logs", "tickets"))]


@pytest.mark.parametrize(("days", "due"), [(-1, True), (0, True), (1, False)])
def test_a_base_is_due_when_its_date_has_come(deprecated, days: int, due: bool):
    with open_catalog().begin() as work:
        work.deprecate_base("old", on=TODAY + timedelta(days=days), successor="new")
    assert bool(due_pairs(OPTIONS)) == due
    assert pair_of("old", OPTIONS).adapters, "an event does not wait for the date"


def test_without_a_successor_or_adapters_nothing_is_due(home):
    with open_catalog().begin() as work:
        a_base(work, "old")
        work.deprecate_base("old", on=None, successor=None)
        a_base(work, "bare")
        a_base(work, "new")
        work.deprecate_base("bare", on=None, successor="new")
    assert due_pairs(OPTIONS) == []
    with pytest.raises(RecordNotFound, match="--successor"):
        pair_of("old", OPTIONS)
    with pytest.raises(RecordNotFound, match="base add"):
        pair_of("absent", OPTIONS)


def test_one_start_for_all_who_see_the_same_need(deprecated):
    (pair,) = due_pairs(OPTIONS)
    with ThreadPoolExecutor(8) as pool:
        starts = list(pool.map(lambda _: claim_start(pair, OPTIONS, "sweep"), range(8)))
    assert len({one.key for one in starts}) == 1
    assert starts[0].request["adapters"] == ["logs", "tickets"]
    assert starts[0].request["requested_by"] == "sweep"


def test_only_one_process_runs_a_pair_here(deprecated):
    (pair,) = due_pairs(OPTIONS)
    with running_here(pair) as first, running_here(pair) as second:
        assert (first, second) == (True, False)
    with running_here(pair) as again:
        assert again


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
class TestFlow:
    def test_it_starts_what_is_due_and_nothing_the_second_time(self, deprecated, runs):
        (started,) = sweep_deprecated()
        assert (started.state, started.adapters) == ("finished", ("logs", "tickets"))
        assert [(one.source, one.targets, one.adapters) for one in runs] == [
            ("old", ["new"], ["logs", "tickets"])
        ]

    def test_a_crash_between_start_and_run_is_taken_up(self, deprecated, runs):
        (pair,) = due_pairs(OPTIONS)
        left = claim_start(pair, OPTIONS, "sweep")
        (started,) = sweep_deprecated()
        assert started.state == "finished"
        with open_catalog().begin() as work:
            (start,) = work.starts()
        assert (start.key, start.ended_at is not None) == (left.key, True)

    def test_two_sweeps_at_once_run_one_migration(self, deprecated, monkeypatch):
        inner = []

        def run(_request):
            inner.extend(sweep_deprecated())

        monkeypatch.setattr("flows.starting.migrate_fleet", run)
        (outer,) = sweep_deprecated()
        assert outer.state == "finished"
        assert [one.state for one in inner] == ["running"]

    def test_a_delivery_whose_receiver_died_is_acted_upon(self, deprecated, runs, tmp_path, monkeypatch):
        file = tmp_path / "triggers.yaml"
        file.write_text("generic: [{model: llama, base: old, successor: new}]")
        monkeypatch.setenv("CROSS_LORA_WEBHOOK_CONFIG", str(file))
        event = ModelEvent("generic", "llama", None, (Fact("type", "base.deprecated"),))
        keep_delivery(event, "msg-1", load_config(file))
        sweep_deprecated()
        with open_catalog().begin() as work:
            (row,) = work.deliveries()
        assert (row.state, row.reason) == ("started", "finished")
        assert runs[0].requested_by == "webhook generic"

    def test_a_delivery_about_an_unknown_base_fails_and_stops_nobody(
        self, deprecated, runs, tmp_path, monkeypatch
    ):
        file = tmp_path / "triggers.yaml"
        file.write_text("generic: [{model: llama, base: absent}]")
        monkeypatch.setenv("CROSS_LORA_WEBHOOK_CONFIG", str(file))
        event = ModelEvent("generic", "llama", None, (Fact("type", "base.deprecated"),))
        keep_delivery(event, "msg-1", load_config(file))
        assert [one.state for one in sweep_deprecated()] == ["finished"]
        with open_catalog().begin() as work:
            (row,) = work.deliveries()
        assert row.state == "failed"
        assert "absent" in row.reason
        with open_catalog().begin() as work:
            work.deprecate_base(a_base(work, "absent").name, on=None, successor="new")
        sweep_deprecated()
        with open_catalog().begin() as work:
            assert [one.state for one in work.deliveries()] == ["started"], (
                "mended, so the next sweep does it"
            )

    def test_a_pair_that_breaks_stops_no_other(self, deprecated, monkeypatch):
        with open_catalog().begin() as work:
            an_adapter(work, a_base(work, "older"), "mails")
            work.deprecate_base("older", on=None, successor="new")
        tried = []

        def run(request):
            tried.append(request.source)
            if request.source == "old":
                raise BaseModelError("config.json", "no file", "/bases/old", "Restore the folder.")

        monkeypatch.setattr("flows.starting.migrate_fleet", run)
        state = sweep_deprecated(return_state=True)
        assert state.is_failed()
        assert "Restore the folder" in state.message
        assert [(one.source, one.state) for one in state.result(raise_on_failure=False)] == [
            ("old", "failed"),
            ("older", "finished"),
        ]
        sweep_deprecated(return_state=True)
        assert tried.count("old") == 2, "what broke is tried again"

    def test_a_registry_that_cannot_be_asked_stops_nobody(self, deprecated, runs, tmp_path, monkeypatch):
        file = tmp_path / "triggers.yaml"
        file.write_text("mlflow: [{model: llama, base: old, deprecated_by: [{tag: deprecated}]}]")
        monkeypatch.setenv("CROSS_LORA_WEBHOOK_CONFIG", str(file))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr("flows.sweep_deprecated.poll_registry", poll_registry.with_options(retries=0))
        state = sweep_deprecated(return_state=True)
        assert state.is_failed()
        assert "127.0.0.1:9" in state.message
        assert [one.state for one in state.result(raise_on_failure=False)] == ["finished"]

    def test_pointers_are_settled(self, home):
        with open_catalog().begin() as work:
            item = a_result(work)
            work.promote(item.id, actor="ada", reason="")
        sweep_deprecated()
        assert open_stored().read_pointer("adapters/new/tickets/latest.json")

    @pytest.mark.parametrize(("status", "verdict", "left"), [
        ("done", "no_effect", False), ("refused", "refused", False), ("done", "migrated", False), ("failed", "failed", True),
    ])  # fmt: skip
    def test_an_honest_verdict_is_not_asked_for_every_night(self, fleet, status, verdict, left):
        """The real thing once, then the sweep leaves what is settled and takes up what failed."""
        _register(fleet)
        (first,) = sweep_deprecated()
        assert first.adapters == ("plain",)
        assert sweep_deprecated() == []
        with open_catalog().begin() as work:
            (migration,) = work.migrations()
            (item,) = work.items_of(migration.id)
            work.settle_item(item.id, status=status, verdict=verdict, reason="x", evidence={})
        assert bool(due_pairs(OPTIONS)) == left


def _register(fleet) -> None:
    from cross_lora_core.migration import register_base
    from cross_lora_core.models import open_base

    for folder in (fleet.source, fleet.target):
        with open_catalog().begin() as work:
            register_base(work, open_base(folder))
    register_adapters([fleet.adapter("plain")], "old-llama", None, None)
    with open_catalog().begin() as work:
        work.deprecate_base("old-llama", on=None, successor="new-gemma")


def test_the_command_tells_a_broken_pair_from_a_server_that_is_not_there(deprecated, monkeypatch):
    """As a script meets it: rows and exit code 4, or exit code 5 and nothing."""
    from typer.testing import CliRunner

    from flows.cli import app
    from flows.starting import Started
    from flows.sweep_deprecated import sweep_deprecated as flow

    broken = Started("old", "new", ("tickets",), "failed", reason="no such folder")
    failed = Failed(message="old: no such folder", data=[broken])
    monkeypatch.setattr("flows.sweep_deprecated.sweep_deprecated", lambda **_: failed)
    result = CliRunner().invoke(app, ["sweep", "--json"])
    assert result.exit_code == 4
    assert [one["reason"] for one in json.loads(result.stdout)] == ["no such folder"]
    monkeypatch.setattr("flows.sweep_deprecated.sweep_deprecated", flow)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        result = CliRunner().invoke(app, ["sweep", "--json"])
    assert result.exit_code == 5, result.output


def test_events_may_be_left_to_an_automation(deprecated, monkeypatch):
    emitted = []
    monkeypatch.setenv("CROSS_LORA_WEBHOOK_START", "event")
    monkeypatch.setattr("flows.starting.emit_event", lambda **event: emitted.append(event))
    started = start_source("old", OPTIONS, "webhook mlflow")
    assert started.state == "event"
    (event,) = emitted
    assert event["payload"] == {"source": "old", "target": "new"}
