"""The manifests, by Kubernetes' own schemas and by what every pod must have. No cluster is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.infra_files import INFRA, MANIFESTS, VALUES, containers, documents, pods

DOCUMENTS = {f"{file} {one['kind']} {one['metadata']['name']}": one for file, one in documents()}
every_container = pytest.mark.parametrize("name", containers())


def values(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((INFRA / "helm" / f"{name}.values.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_accepts_it(name: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], kubernetes_validate.latest_version(), strict=True)


def test_the_schema_would_refuse_nonsense() -> None:
    broken = next(one for one in DOCUMENTS.values() if one["kind"] == "Deployment") | {"specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_finds_every_file() -> None:
    listed = yaml.safe_load((INFRA / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(f"k8s/{path.name}" for path in MANIFESTS)
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine to run kustomize")
    built = subprocess.run(["kubectl", "kustomize", INFRA], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for one in yaml.safe_load_all(built.stdout):
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_yamllint_has_nothing_to_say() -> None:
    files = [*MANIFESTS, *VALUES, INFRA / "kustomization.yaml", INFRA / "compose.yaml"]
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", INFRA / ".yamllint", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", pods())
def test_a_pod_meets_the_restricted_profile(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not [one for one in pod["volumes"] if "hostPath" in one]


@every_container
def test_a_container_can_change_nothing_but_its_volumes(name: str) -> None:
    one = containers()[name]
    assert one["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= one["resources"]["limits"].keys() & one["resources"]["requests"].keys()


@every_container
def test_no_secret_is_written_in_a_manifest(name: str) -> None:
    for env in containers()[name].get("env", []):
        assert not any(word in env["name"] for word in ("PASSWORD", "SECRET", "AUTH", "KEY"))


def test_no_secret_object_is_shipped() -> None:
    assert not [name for name, one in DOCUMENTS.items() if one["kind"] == "Secret"]


def test_everything_is_denied_first() -> None:
    policy = DOCUMENTS["network-policies.yaml NetworkPolicy deny-all"]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_receiver_survives_the_loss_of_a_node() -> None:
    scaler = DOCUMENTS["webhook.yaml HorizontalPodAutoscaler webhook"]["spec"]
    assert (
        scaler["minReplicas"] > DOCUMENTS["webhook.yaml PodDisruptionBudget webhook"]["spec"]["minAvailable"]
    )


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_of_the_chart_is_as_hardened(name: str) -> None:
    worker = values(name)["worker"]
    assert worker["podSecurityContext"]["runAsNonRoot"] is True
    assert worker["containerSecurityContext"]["readOnlyRootFilesystem"] is True
    assert worker["containerSecurityContext"]["allowPrivilegeEscalation"] is False
    assert worker["containerSecurityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert worker["config"]["type"] == "process"
    assert worker["config"]["workPool"] == f"cross-lora-{name.removeprefix('worker-')}"
    assert values(name)["role"] == values(name)["rolebinding"] == {"create": False}


def test_the_gpu_worker_asks_for_a_gpu_where_gpus_are() -> None:
    worker = values("worker-gpu")["worker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert worker["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "resources" in values("worker-cpu")["worker"]
    assert "nodeSelector" not in values("worker-cpu")["worker"]


def test_the_api_asks_for_a_password() -> None:
    assert values("prefect-server")["server"]["basicAuth"] == {
        "enabled": True,
        "existingSecret": "prefect-server-auth",
    }


def test_secrets_have_the_names_of_their_files(tmp_path: Path) -> None:
    from infra.make_secrets import write_secrets

    made = {path.stem for path in write_secrets(tmp_path / "s", "postgres")}
    for one in containers().values():
        for source in one.get("envFrom", []):
            if "secretRef" in source:
                assert source["secretRef"]["name"].removeprefix("cross-lora-") in made
