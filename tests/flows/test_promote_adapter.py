"""Promotion and rollback as flows: what the UI and the deployments start."""

from __future__ import annotations

import pytest
from prefect.client.orchestration import get_client

from flows.promote_adapter import promote, rollback
from tasks.runtime import open_catalog, open_stored
from tests.support.rows import a_result

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]
KEY = "adapters/new/tickets/latest.json"


def test_both_flows_move_the_alias_and_name_their_runs():
    with open_catalog().begin() as work:
        migrations = [a_result(work, request=f"request {number}").migration_id for number in range(2)]
    for migration in migrations:
        promote("tickets", "new", actor="ada", reason="cutover", migration=migration)
    promoted = open_stored().read_pointer(KEY)
    state = rollback("tickets", "new", actor="bob", reason="worse", return_state=True)
    assert state.is_completed()
    assert open_stored().read_pointer(KEY) != promoted
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.name == "rollback tickets on new"


def test_a_refusal_fails_the_run_and_says_what_to_do():
    with open_catalog().begin() as work:
        a_result(work, "no_effect")
    state = promote("tickets", "new", actor="ada", return_state=True)
    assert state.is_failed()
    assert "--accept no_effect" in state.message


@pytest.mark.parametrize("wrong", [{"actor": ""}, {"accept": "refused"}, {"adapter": ""}])
def test_parameters_are_checked_before_anything_moves(wrong):
    given = {"adapter": "tickets", "target": "new", "actor": "ada"} | wrong
    state = promote(**given, return_state=True)
    assert state.is_failed()
    assert "invalid parameters" in state.message
