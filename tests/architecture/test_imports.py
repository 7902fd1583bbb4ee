"""The library stands without Prefect, and the algebra without everything but torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_algebra_imports_torch_and_the_standard_library_only() -> None:
    loaded = _modules_after(
        "import torch; before = set(__import__('sys').modules); import cross_lora_core.algebra"
    )
    forbidden = {"prefect", "transformers", "safetensors", "sqlalchemy", "boto3", "peft", "pydantic"}
    assert not forbidden & loaded


@pytest.mark.parametrize(
    "package",
    [
        "models",
        "adapters",
        "storage",
        "catalog",
        "evaluation",
        "migration",
        "responses",
        "training",
        "fitting",
        "experiments",
    ],
)
def test_library_imports_no_prefect(package: str) -> None:
    assert "prefect" not in _modules_after(f"import cross_lora_core.{package}")


@pytest.mark.parametrize("package", ["models", "adapters", "migration"])
def test_who_keeps_everything_in_folders_needs_no_boto3(package: str) -> None:
    assert not {"boto3", "botocore"} & _modules_after(f"import cross_lora_core.{package}")


def test_planning_loads_no_models() -> None:
    assert not {"transformers", "peft"} & _modules_after("import cross_lora_core.migration")


def test_help_does_not_wait_for_torch() -> None:
    assert not {"torch", "prefect", "transformers"} & _modules_after("import flows.cli")
