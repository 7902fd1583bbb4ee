"""compose.yaml: the schema, and what every service must have. No Docker engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from cross_lora_core.registry import load_config
from infra.make_secrets import write_secrets
from tests.support.infra_files import INFRA, compose, env_file

SERVICES = compose()["services"]
ONCE = {"bucket", "catalog-upgrade", "catalog-grants", "deploy"}
every = pytest.mark.parametrize("name", SERVICES)
lasting = pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_compose(data: dict[str, Any]) -> PyCompose:
    """Merge keys resolved, as compose itself does first."""
    return PyCompose.from_yaml(yaml.dump(data, Dumper=_Plain))


def test_the_schema_accepts_it() -> None:
    as_compose(compose()).validate()


def test_the_schema_would_refuse_nonsense() -> None:
    for change in ({"ports": ["127.0.0.1:4200:x"]}, {"depends_on": {"s3": {"condition": "service_helthy"}}}):
        data = compose()
        data["services"]["webhook"] |= change
        with pytest.raises(ValueError, match="webhook"):
            as_compose(data)


@every
def test_a_service_can_change_nothing_but_its_volumes(name: str) -> None:
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in one
    assert one.get("network_mode") is None
    assert "docker.sock" not in str(one)


@every
def test_a_service_does_not_run_as_root(name: str) -> None:
    """Images of ours set their user; for others compose does."""
    one = SERVICES[name]
    assert one["image"].startswith("cross-lora-fleet/") or not one["user"].startswith("0")


@every
def test_a_service_has_limits(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= limits.keys()
    assert SERVICES[name]["pids_limit"] > 0


@every
def test_an_image_is_pinned_or_ours(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image.startswith("cross-lora-fleet/") or image.partition(":")[2] not in ("", "latest")


@every
def test_ports_are_open_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", sorted(ONCE))
def test_what_runs_once_is_not_started_again(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"


@lasting
def test_what_lasts_is_started_again_and_watched(name: str) -> None:
    """By its own healthcheck, or the one of its image (tests of the Dockerfile)."""
    one = SERVICES[name]
    assert one["restart"] == "unless-stopped"
    assert "healthcheck" in one or one["image"].startswith("cross-lora-fleet/")
    assert one.get("healthcheck", {}).get("disable") is not True


@every
def test_waiting_is_for_something_that_can_happen(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
        assert how["condition"] == wanted, needed


@every
def test_a_service_reaches_only_what_it_needs(name: str) -> None:
    networks = set(SERVICES[name]["networks"])
    assert networks <= compose()["networks"].keys()
    if name in ("webhook", "prefect-server", "deploy", "mlflow"):
        assert "objects" not in networks
    if name in ("deploy", "mlflow", "s3", "bucket"):
        assert "database" not in networks


def test_databases_and_the_store_have_no_way_out() -> None:
    networks = compose()["networks"]
    assert networks["database"]["internal"]
    assert networks["objects"]["internal"]


def test_no_secret_is_written_in_the_file() -> None:
    for one in SERVICES.values():
        for variable in one.get("environment", {}):
            assert not any(
                word in variable for word in ("PASSWORD", "SECRET", "AUTH", "KEY", "CROSS_LORA_CATALOG")
            )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    write_secrets(folder, "postgres")
    return folder


def test_every_file_that_is_named_exists(secrets: Path) -> None:
    for one in SERVICES.values():
        for file in one.get("env_file", []):
            assert (
                (secrets / Path(file).name).is_file()
                if file.startswith("secrets/")
                else (INFRA / file).is_file()
            )
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            assert (INFRA / source).is_file() if source.startswith("./") else source in compose()["volumes"]
    for one in compose()["secrets"].values():
        assert (secrets / Path(one["file"]).name).is_file()


def test_a_service_gets_its_own_secrets_and_no_other(secrets: Path) -> None:
    users = {Path(file).stem: name for name, one in SERVICES.items() for file in one.get("env_file", [])}
    assert users["postgres"] == "postgres"
    superuser = env_file(secrets / "postgres.env")["POSTGRES_PASSWORD"]
    owner = env_file(secrets / "catalog-owner.env")["PGPASSWORD"]
    for name in ("worker", "webhook", "deploy", "prefect-server"):
        text = (secrets / f"{name}.env").read_text()
        assert superuser not in text
        assert owner not in text
    assert "AWS_" not in (secrets / "webhook.env").read_text()
    assert "PREFECT_DATABASE" not in (secrets / "worker.env").read_text()


def test_the_api_asks_for_the_password_its_clients_have(secrets: Path) -> None:
    asked = env_file(secrets / "prefect-server.env")["PREFECT_SERVER_API_AUTH_STRING"]
    for client in ("worker", "webhook", "deploy"):
        assert env_file(secrets / f"{client}.env")["PREFECT_API_AUTH_STRING"] == asked


def test_the_example_of_webhook_rules_can_be_read() -> None:
    assert load_config(INFRA / "webhooks.example.yaml").mlflow


def test_migrations_find_a_worker_with_and_without_a_gpu() -> None:
    declared = yaml.safe_load((INFRA / "prefect.yaml").read_text())["deployments"]
    pools = {one["work_pool"]["name"] for one in declared}
    assert pools == {"cross-lora-cpu", "cross-lora-gpu"}
    assert "cross-lora-gpu" in SERVICES["worker-no-gpu"]["command"]
    assert SERVICES["worker-no-gpu"]["profiles"] == ["no-gpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
