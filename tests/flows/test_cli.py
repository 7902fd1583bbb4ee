"""The command line as scripts and people meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner, Result

from cross_lora_core.migration import METHOD_NEEDS
from flows.cli import app
from flows.commands.migration import MethodName

pytestmark = pytest.mark.usefixtures("home")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def answer(*arguments: object, code: int = 0) -> Any:
    """The one JSON document on stdout."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def registered(fleet) -> None:
    answer("base", "add", fleet.source, fleet.target)
    answer(
        "adapter",
        "add",
        fleet.adapter("measured"),
        fleet.adapter("plain"),
        "--base",
        "old-llama",
        "--owner",
        "ops",
    )


def test_help_says_how_to_go_on():
    text = run("--help").output
    for word in (
        "plan",
        "migrate",
        "status",
        "report",
        "promote",
        "rollback",
        "base",
        "adapter",
        "Exit codes",
    ):
        assert word in text
    for command in (["base", "add"], ["adapter", "check"], ["migrate"], ["promote"], ["catalog", "upgrade"]):
        assert run(*command, "--help").exit_code == 0


def test_the_methods_offered_are_the_methods_there_are():
    assert set(get_args(MethodName)) == {str(method) for method in METHOD_NEEDS}


def test_check_ok_and_refused(fleet):
    good = answer("adapter", "check", fleet.adapter("plain"), "--base", fleet.source)
    assert (good["status"], good["modules"], good["usable"], good["base"]) == ("ok", 12, 12, "old-llama")
    bad = answer("adapter", "check", fleet.adapter("broken"), code=3)
    assert bad["status"] == "refused"
    assert "NaN" in bad["reason"]
    assert list(good) == list(bad)
    assert "12 of 12 can be moved" in run("adapter", "check", fleet.adapter("plain")).output


def test_check_against_the_wrong_base(fleet):
    found = answer("adapter", "check", fleet.adapter("plain"), "--base", fleet.target, code=3)
    assert "wrong base" in found["reason"]


def test_bases_and_adapters_are_registered_and_listed(registered, fleet):
    bases = {row["name"]: row for row in answer("base", "list")}
    assert bases["old-llama"]["adapters"] == 2
    assert bases["new-gemma"]["adapters"] == 0
    adapters = answer("adapter", "list", "--base", "old-llama")
    assert [(row["name"], row["owner"]) for row in adapters] == [("measured", "ops"), ("plain", "ops")]
    assert adapters[0]["evaluation"].endswith("evaluation.jsonl")
    assert len(answer("adapter", "list", "--base", "old-llama", "--unmigrated-to", "new-gemma")) == 2
    answer("base", "add", fleet.source)
    assert len(answer("base", "list")) == 2
    assert "old-llama" in run("base", "list").output


def test_deprecation(registered):
    record = answer("base", "deprecate", "old-llama", "--on", "2027-03-31", "--successor", "new-gemma")
    assert (record["status"], record["deprecated_on"]) == ("deprecated", "2027-03-31")
    row = next(one for one in answer("base", "list") if one["name"] == "old-llama")
    assert row["successor"] == "new-gemma"


def test_a_refused_adapter_is_not_registered_but_the_others_are(registered, fleet):
    results = answer(
        "adapter", "add", fleet.adapter("broken"), fleet.adapter("wide"), "--base", "old-llama", code=3
    )
    assert [one["status"] for one in results] == ["refused", "ok"]
    assert [row["name"] for row in answer("adapter", "list")] == ["measured", "plain", "wide"]


def test_plan_says_what_would_happen_and_writes_nothing(fleet, home):
    arguments = [
        "--source",
        fleet.source,
        "--target",
        fleet.target,
        "--adapter",
        fleet.adapters,
        "--rank",
        12,
    ]
    plan = answer("plan", *arguments)
    items = {one["adapter"]: one for one in plan["items"]}
    assert items["plain"]["modules"] == 16
    assert items["plain"]["output_bytes"] > 0
    assert items["plain"]["evaluation"] is None
    assert items["measured"]["evaluation"].endswith("evaluation.jsonl")
    assert "NaN" in items["broken"]["refusal"]
    assert plan["estimate"]["factor_bytes"] > 0
    assert not (home / "store" / "factors").exists()
    assert answer("base", "list") == []
    assert "16 modules" in run("plan", *arguments).output


@pytest.mark.parametrize(
    ("method", "untimed"), [("cross-lora", []), ("effect", ["effect"]), ("probe", ["probe"])]
)
def test_plan_says_which_methods_it_has_no_time_for(fleet, method, untimed):
    arguments = ["--source", fleet.source, "--target", fleet.target, "--adapter", fleet.adapter("plain")]
    arguments += ["--rank", 12, "--method", method]
    assert answer("plan", *arguments)["estimate"]["untimed"] == untimed
    assert (f"not estimated: {method}" in run("plan", *arguments).output) == bool(untimed)


def test_plan_lists_what_is_left_behind(fleet):
    plan = answer(
        "plan",
        "--source",
        fleet.target,
        "--target",
        fleet.source,
        "--adapter",
        make_gemma(fleet),
        "--rank",
        12,
    )
    (item,) = plan["items"]
    assert len(item["skipped"]) == 4
    assert "is mapped to layer" in item["skipped"][0]["reason"]


def make_gemma(fleet) -> str:
    from tests.support.fleets import make_adapter

    folder = fleet.adapters.parent / "on-gemma"
    return str(folder if folder.exists() else make_adapter(fleet.target, folder))


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_migrate_status_report_promote_rollback(fleet, home, tmp_path):
    where = ["--source", fleet.source, "--target", fleet.target, "--rank", 12]
    outcome = answer("migrate", *where, "--adapter", fleet.adapter("plain"))
    (item,) = outcome["items"]
    fields = {"status", "verdict", "reason", "modules_expected", "modules_landed", "output"}
    assert fields <= set(item)
    assert (item["status"], item["verdict"]) == ("done", "unverified")
    assert (Path(item["output"]) / "adapter_model.safetensors").is_file()

    state = answer("status")
    assert state["items"] == [item]
    assert state["status"] == "finished"
    assert "unverified" in run("status").output

    page = tmp_path / "page.html"
    report = answer("report", "--output", page)
    assert report["path"] == str(page)
    assert page.read_text().startswith("<!doctype html>")

    refused = answer("promote", "plain", "--target", "new-gemma", code=1)
    assert refused["error"] == "RecordConflict"
    assert "--accept unverified" in refused["message"]
    promoted = answer(
        "promote", "plain", "--target", "new-gemma", "--accept", "unverified", "--reason", "tried by hand"
    )
    assert promoted["output"] == item["output"]
    assert answer("status")["promoted"][0]["reason"] == "tried by hand"
    assert answer("rollback", "plain", "--target", "new-gemma", code=1)["error"] == "RecordNotFound"

    second = answer("migrate", *where, "--adapter", fleet.adapter("plain"), "--method", "interpolate")
    answer("promote", "plain", "--target", "new-gemma", "--accept", "unverified")
    back = answer("rollback", "plain", "--target", "new-gemma", "--reason", "worse")
    assert back["output"] == item["output"] != second["items"][0]["output"]


def process(fleet, *names: str) -> tuple[list[str], dict[str, str]]:
    """A migration as a person starts it: Prefect in-process, no server, no profile."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "flows.cli", "migrate", "--json", "--rank", "12"]
    command += ["--source", str(fleet.source), "--target", str(fleet.target)]
    return command + [part for name in names for part in ("--adapter", fleet.adapter(name))], environment


@pytest.mark.flow
def test_migrate_in_a_process_of_its_own_keeps_stdout_clean(fleet, home):
    """One document on stdout, exit code 4 for a refusal."""
    command, environment = process(fleet, "plain", "broken")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 4, done.stderr
    outcome = json.loads(done.stdout)
    assert [one["status"] for one in outcome["items"]] == ["done", "refused"]
    assert "Traceback" not in done.stderr


@pytest.mark.flow
def test_control_c_loses_nothing_and_the_same_command_resumes(fleet, home):
    command, environment = process(fleet, "plain", "measured", "wide")
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background ignores it
    )
    store = home / "store" / "factors"
    deadline = time.monotonic() + 240
    while not list(store.rglob("*.safetensors")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, messages = running.communicate(timeout=240)
    assert running.returncode == 130, messages
    assert "the same command resumes" in messages
    resumed = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert resumed.returncode == 0, resumed.stderr
    assert [one["status"] for one in json.loads(resumed.stdout)["items"]] == ["done"] * 3
    assert not list((home / "store" / ".staging").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status"], 1, "none yet"),
        (["report", "7"], 1, "no id 7"),
        (["base", "add", "/absent/folder"], 1, "absent"),
        (["base", "deprecate", "absent"], 1, "no base named 'absent'"),
        (["adapter", "list", "--base", "absent"], 1, "no base named 'absent'"),
        (["promote", "x", "--target", "absent"], 1, "no base named 'absent'"),
        (["base", "add"], 2, ""),
        (["migrate", "--source", "x"], 2, ""),
    ],
)
def test_mistakes_are_answered_with_what_to_do(arguments, code, words):
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    if code == 1:
        assert "what to do" in result.output
        assert "message" in answer(*arguments, code=1)


def test_unknown_adapters_are_named(fleet):
    where = ["--source", fleet.source, "--target", fleet.target]
    assert "'nobody'" in answer("plan", *where, "--adapter", "nobody", code=1)["message"]
    assert "adapters registered on old-llama" in answer("plan", *where, code=1)["message"]


def test_a_setting_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("CROSS_LORA_WORKERS", "many")
    assert "CROSS_LORA_WORKERS" in answer("status", code=1)["message"]


def test_a_database_that_does_not_answer_can_be_tried_again(monkeypatch):
    monkeypatch.setenv("CROSS_LORA_CATALOG", "postgresql+psycopg://nobody@127.0.0.1:9/none")
    assert answer("base", "list", code=5)["error"] == "CatalogUnavailable"


def test_catalog_commands(home):
    assert answer("catalog", "check", code=1)["error"] == "CatalogSchemaError"
    upgraded = answer("catalog", "upgrade")
    assert answer("catalog", "check") == upgraded
