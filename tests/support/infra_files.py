"""What `infra/` says, read once for the tests: compose services, pods, variables, commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
MANIFESTS = sorted((INFRA / "k8s").glob("*.yaml"))
VALUES = sorted((INFRA / "helm").glob("*.values.yaml"))
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


@dataclass(frozen=True)
class Variable:
    """An environment variable that a file of infra/ sets."""

    file: str
    name: str
    value: str


def compose() -> dict[str, Any]:
    """compose.yaml with its variables' defaults filled in."""
    loaded: dict[str, Any] = yaml.safe_load(_DEFAULT.sub(r"\1", (INFRA / "compose.yaml").read_text()))
    return loaded


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Kubernetes document, with its file's name."""
    for path in MANIFESTS:
        yield from ((path.name, document) for document in yaml.safe_load_all(path.read_text()))


def pods() -> dict[str, dict[str, Any]]:
    """Pod specs by the name of what makes them."""
    found = {}
    for _, one in documents():
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]["spec"]
    return found


def containers() -> dict[str, dict[str, Any]]:
    """Containers of all pods, by `pod/container`."""
    return {
        f"{pod}/{one['name']}": one
        for pod, spec in pods().items()
        for one in [*spec.get("initContainers", []), *spec["containers"]]
    }


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def dockerfile() -> str:
    """Without comments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (INFRA / "Dockerfile").read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ")


def variables(secrets: Path) -> list[Variable]:
    """All variables, those of the files that make_secrets wrote into a folder among them."""
    found = [
        Variable(path.name, *pair)
        for path in (*secrets.glob("*.env"), INFRA / "prefect-server.env")
        for pair in env_file(path).items()
    ]
    for service, one in compose()["services"].items():
        found += [
            Variable(f"compose {service}", name, str(value))
            for name, value in one.get("environment", {}).items()
        ]
    for _, document in documents():
        if document["kind"] == "ConfigMap":
            found += [Variable("ConfigMap", name, value) for name, value in document["data"].items()]
    for name, one in containers().items():
        found += [Variable(name, env["name"], env.get("value", "")) for env in one.get("env", [])]
    for path in VALUES:
        worker = yaml.safe_load(path.read_text()).get("worker", {})
        found += [Variable(path.name, env["name"], env["value"]) for env in worker.get("extraEnvVars", [])]
    for line in re.findall(r"^ENV (.*)$", dockerfile(), flags=re.MULTILINE):
        found += [Variable("Dockerfile", *pair.split("=", 1)) for pair in shlex.split(line)]
    return found


def commands() -> dict[str, list[str]]:
    """What is started where, by place."""
    found = {
        f"Dockerfile {number}": json.loads(text)
        for number, text in enumerate(re.findall(r"^CMD (\[.*\])", dockerfile(), flags=re.MULTILINE))
    }
    for service, one in compose()["services"].items():
        if "command" in one:
            found[f"compose {service}"] = [*one.get("entrypoint", []), *one["command"]]
    for name, one in containers().items():
        found[name] = [*one.get("command", []), *one.get("args", [])]
    return found
