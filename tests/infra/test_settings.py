"""Every variable that infra/ sets is a setting that exists, with a value that it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names

from cross_lora_core.settings import Settings
from infra.make_secrets import write_secrets
from tests.support.infra_files import INFRA, Variable, env_file, variables

OURS = {f"CROSS_LORA_{name.upper()}" for name in Settings.model_fields}
PREFECTS = _get_valid_setting_names(PrefectSettings)
OTHERS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",  # boto3
    "PGPASSWORD", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS",  # libpq, postgres image
    "CATALOG_OWNER_PASSWORD", "CATALOG_APP_PASSWORD", "PREFECT_DATABASE_PASSWORD",  # infra/sql
    "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "MLFLOW_TRACKING_URI",
    "PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DO_NOT_TRACK",
    "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INPUT",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
}  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> list[Variable]:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    write_secrets(folder, "postgres")
    return variables(folder)


def test_every_variable_is_a_setting(named: list[Variable]) -> None:
    known = OURS | PREFECTS | OTHERS
    assert {f"{one.name} ({one.file})" for one in named if one.name not in known} == set()


def test_our_settings_take_the_values(named: list[Variable], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [one for one in named if one.name in OURS]
    assert {one.name for one in ours} >= {
        "CROSS_LORA_STORE",
        "CROSS_LORA_CATALOG",
        "CROSS_LORA_HOME",
        "CROSS_LORA_DEVICE",
    }
    for one in ours:
        with monkeypatch.context() as within:
            within.setenv(one.name, one.value)
            Settings()


def test_prefects_server_takes_its_settings() -> None:
    """A fresh process, because Prefect reads them when it is imported."""
    script = (
        "import json; from prefect.settings import get_current_settings as current; s = current().server; "
        "print(json.dumps([sorted(s.services.db_vacuum.enabled_vacuum_types), "
        "s.services.db_vacuum.retention_period.total_seconds(), s.events.retention_period.total_seconds(), "
        "s.services.task_run_recorder.batch_size, s.services.event_persister.read_batch_size, "
        "s.api.csrf_protection_enabled, s.database.driver]))"
    )
    env = os.environ | env_file(INFRA / "prefect-server.env") | {"PREFECT_SERVER_DATABASE_HOST": "postgres"}
    env |= {"PREFECT_SERVER_DATABASE_PASSWORD": "secret"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["events", "flow_runs", "orphans"],
        timedelta(days=30).total_seconds(),
        timedelta(days=7).total_seconds(),
        100,
        100,
        True,
        "postgresql+asyncpg",
    ]


def test_prefect_takes_every_other_value(named: list[Variable], monkeypatch: pytest.MonkeyPatch) -> None:
    for where in {one.file for one in named}:
        with monkeypatch.context() as within:
            for one in named:
                if one.file == where and one.name in PREFECTS:
                    within.setenv(one.name, one.value)
            within.setenv("PREFECT_SERVER_DATABASE_HOST", "postgres")
            PrefectSettings()
