"""Prefect's API goes away under a flow run: what is an outage, how often and how long it is ridden out."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows.migrate_fleet as migrating
from cross_lora_core.errors import PrefectUnavailable, StoreUnavailable
from cross_lora_core.migration import MigrationRequest
from flows.outages import is_outage, riding_out, wait_out
from tests.support.servers import free_port


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api/flows/")
    return httpx.HTTPStatusError(str(status), request=request, response=httpx.Response(status))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of_the_store() -> StoreUnavailable:
    return StoreUnavailable("an answer", "none", "s3://fleet", "Wait.")


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (httpx.ConnectError("All connection attempts failed"), True),
        (httpx.ReadError(""), True),
        (answered(503), True),
        (answered(404), False),
        (RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"), True),
        (RuntimeError("the API of a tensor"), False),
        (caused(RuntimeError("while it submitted a task run"), httpx.ConnectError("refused")), True),
        (caused(of_the_store(), httpx.ConnectError("refused")), False),
        (ValueError("a mistake"), False),
    ],
)
def test_what_is_an_outage(error, outage):
    assert is_outage(error) is outage


class Attempts:
    """Fails with each error in turn, then answers how often it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.made = list(errors), 0

    def __call__(self) -> int:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.made


@pytest.mark.usefixtures("prefect_server")
class TestRidingOut:
    def test_made_again_when_the_api_is_back(self):
        assert riding_out(Attempts(httpx.ConnectError("refused"), answered(503))) == 3

    def test_other_errors_pass(self):
        attempts = Attempts(of_the_store())
        with pytest.raises(StoreUnavailable):
            riding_out(attempts)
        assert attempts.made == 1

    def test_not_for_ever(self):
        attempts = Attempts(*(httpx.ConnectError("refused") for _ in range(20)))
        with pytest.raises(PrefectUnavailable, match="refused"):
            riding_out(attempts)
        assert attempts.made == 5


def test_an_api_that_stays_away_is_named(monkeypatch):
    monkeypatch.setattr("flows.outages._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("flows.outages._LOOK_SECONDS", 0.1)
    away = f"http://127.0.0.1:{free_port()}/api"
    attempts = Attempts(httpx.ConnectError(""))
    with temporary_settings({PREFECT_API_URL: away}), pytest.raises(PrefectUnavailable) as told:
        riding_out(attempts)
    assert away in str(told.value)
    assert "ConnectError" in str(told.value)
    assert attempts.made == 1


def test_a_short_lived_api_is_not_waited_for():
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(PrefectUnavailable, match="short-lived"):
        riding_out(Attempts(httpx.ConnectError("refused")))


class Step:
    """A task run; its wait may raise what kept it from starting."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble, self.ended = trouble, False

    def wait(self) -> None:
        self.ended = True
        if self.trouble:
            raise self.trouble


def test_every_task_run_is_waited_for_even_after_one_that_raises():
    steps = [Step(), Step(httpx.ConnectError("refused")), Step()]
    wait_out(steps)
    assert all(step.ended for step in steps)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server", "home")
def test_a_migration_goes_on_after_an_outage_and_repeats_nothing(fleet, monkeypatch):
    """The API goes away while a fleet is settled; the next attempt starts when no task run is left."""
    import tasks.project_adapter as projecting

    real_put, real_plan, real_settle = projecting.put_once, migrating.plan_migration, migrating.settle_item
    begun, ended, before_attempts, outages = Counter(), Counter(), [], [httpx.ConnectError("refused")]

    def noting(key, write, **options):
        def noted(path):
            begun[key] += 1
            write(path)
            ended[key] += 1

        return real_put(key, noted, **options)

    def planning(request):
        before_attempts.append((Counter(begun), Counter(ended)))
        return real_plan(request)

    def settling(run):
        if outages:
            raise outages.pop()
        return real_settle(run)

    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))
    monkeypatch.setattr(projecting, "put_once", noting)
    monkeypatch.setattr(migrating, "plan_migration", planning)
    monkeypatch.setattr(migrating, "settle_item", settling)
    request = MigrationRequest(
        source=str(fleet.source), targets=[str(fleet.target)], adapters=[str(fleet.adapters)], rank=12
    )
    outcome = migrating.migrate_fleet(request)
    assert {one.adapter: one.status for one in outcome.items}["plain"] == "done"
    first, second = before_attempts
    assert not first[0]
    assert second[0]
    assert second[0] == second[1]  # nothing was under way when the second attempt began
    assert set(begun.values()) == {1}
