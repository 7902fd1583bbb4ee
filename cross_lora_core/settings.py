"""Where things are kept and how the work is done, read from `CROSS_LORA_*` in the environment.

The default needs no server: a SQLite catalog and a local store under
`CROSS_LORA_HOME`, Prefect's in-process API, threads.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cross_lora_core.errors import ConfigurationError

__all__ = ["OutputDtype", "Settings", "load_settings"]

OutputDtype = Literal["float16", "bfloat16", "float32"]


def _default_home() -> Path:
    return Path.home() / ".cross-lora"


class Settings(BaseSettings):
    """Every setting of this project, each also an environment variable `CROSS_LORA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="CROSS_LORA_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=_default_home, description="Folder for the default catalog and store")
    store: str = Field("", description="file:///folder or s3://bucket/prefix; default: HOME/store")
    catalog: str = Field("", repr=False, description="SQLAlchemy URL; default: sqlite under HOME")
    workers: int = Field(min(4, os.cpu_count() or 1), ge=1, le=256, description="Task threads per flow run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where tensors are computed")
    device_slots: int | None = Field(
        None, ge=1, le=256, description="Device tasks at once in a process; default: its GPUs, or WORKERS"
    )
    task_runner: Literal["threads", "dask", "ray"] = Field("threads", description="What runs a flow's tasks")
    dask_address: str = Field("", description="Scheduler of an existing Dask cluster; default: a local one")
    ray_address: str = Field("", description="Address of an existing Ray cluster; default: a local one")
    group_bytes: int = Field(
        256 * 2**20, ge=2**16, description="Upper bound of the factors a layer group needs, in bytes"
    )
    evaluation_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision in which the real target model is run for evaluation"
    )
    confidence: float = Field(0.99, gt=0.5, lt=1, description="Level of every bootstrap interval")
    minimum_rows: int = Field(8, ge=2, description="Evaluation files shorter than this prove nothing")
    seed: int = Field(0, ge=0, description="Seed of the random control and of the bootstrap")

    webhook_config: Path | None = Field(
        None, description="YAML or TOML file: which event deprecates which base"
    )
    webhook_start: Literal["deployment", "event"] = Field(
        "deployment", description="Start a migration by its deployment, or emit an event for an automation"
    )
    webhook_secret_mlflow: SecretStr | None = Field(None, description="Secret of MLflow's webhooks")
    webhook_secret_huggingface: SecretStr | None = Field(None, description="Secret of the Hub's webhooks")
    webhook_secret_generic: SecretStr | None = Field(None, description="Secret of generic webhooks")
    webhook_window: int = Field(300, ge=1, description="Seconds a signed delivery may be old or early")
    webhook_bytes: int = Field(2**20, ge=1024, description="Largest delivery, in bytes")
    webhook_rate: int = Field(120, ge=1, description="Deliveries per minute and sender")

    @property
    def store_url(self) -> str:
        """The store's URL, with the default filled in."""
        return self.store or (self.home.expanduser().absolute() / "store").as_uri()

    @property
    def catalog_url(self) -> str:
        """The catalog's SQLAlchemy URL, with the default filled in."""
        return self.catalog or f"sqlite:///{self.home.expanduser().absolute() / 'catalog.db'}"

    @property
    def shared(self) -> dict[str, object]:
        """What all workers of a run must agree on, by variable: where things are, how they are judged."""
        names = ("evaluation_dtype", "confidence", "minimum_rows", "seed")
        values = {"store": self.store_url, "catalog": self.catalog_url}
        values |= {name: getattr(self, name) for name in names}
        return {f"CROSS_LORA_{name.upper()}": value for name, value in values.items()}

    @property
    def work(self) -> Path:
        """Folder of what this machine has begun and can go on with."""
        return self.home.expanduser().absolute() / "work"

    @property
    def reports(self) -> Path:
        """Folder of the HTML reports on this machine."""
        return self.home.expanduser().absolute() / "reports"


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; says which.
    """
    return _read(frozenset(one for one in os.environ.items() if _decides(one[0])))


def _decides(variable: str) -> bool:
    return variable == "HOME" or variable.upper().startswith("CROSS_LORA_")


@lru_cache(maxsize=8)
def _read(_variables: frozenset[tuple[str, str]]) -> Settings:
    """The settings while these variables stay: tasks ask many times, and reading takes milliseconds."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "CROSS_LORA_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(
            first["msg"],
            repr(first.get("input")),
            f"environment variable {name}",
            f"Correct or unset {name}.",
        ) from error
