"""Draw every password and key once, one file per service: `python infra/make_secrets.py infra/secrets`.

A service gets the file with its own secrets and no other. The same files feed compose
(`env_file`) and Kubernetes (`kubectl create secret generic NAME --from-env-file=FILE`).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["main", "write_secrets"]

BUCKET = "cross-lora"


def main() -> int:
    """Write the files unless some are there: a second draw would lock everybody out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database-host", default="postgres", help="where services find PostgreSQL")
    given = parser.parse_args()
    folder = given.folder
    if folder.exists() and any(folder.iterdir()):
        sys.stderr.write(
            f"{folder} is not empty: nothing was changed. docs/operations.md says how to rotate.\n"
        )
        return 1
    for path in write_secrets(folder, given.database_host):
        sys.stdout.write(f"{path}\n")
    return 0


def write_secrets(folder: Path, database_host: str) -> list[Path]:
    """Draw and write every file into a folder that its owner alone can enter; returns their paths.

    The S3 server's file can be read by others within it: its container runs as another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    worker, reader = _s3_key("worker"), _s3_key("reader")
    texts = {
        f"{name}.env": _lines(values) for name, values in _services(worker, reader, database_host).items()
    }
    texts["s3_identities.json"] = json.dumps(_identities(worker, reader), indent=2) + "\n"
    for name, text in texts.items():
        mode = 0o600 if name.endswith(".env") else 0o644
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    return [folder / name for name in sorted(texts)]


def _services(worker: Mapping[str, str], reader: Mapping[str, str], host: str) -> dict[str, dict[str, str]]:
    """Secret variables by the service that gets them."""
    superuser, owner, app, prefect = (secrets.token_urlsafe(24) for _ in range(4))
    auth = f"cross-lora:{secrets.token_urlsafe(24)}"
    client = {"PREFECT_API_AUTH_STRING": auth}
    catalog = {"CROSS_LORA_CATALOG": _database("cross_lora_app", app, host)}
    return {
        "postgres": {
            "POSTGRES_PASSWORD": superuser,
            "CATALOG_OWNER_PASSWORD": owner,
            "CATALOG_APP_PASSWORD": app,
            "PREFECT_DATABASE_PASSWORD": prefect,
        },
        "catalog-owner": {
            "CROSS_LORA_CATALOG": _database("cross_lora_owner", owner, host),
            "PGPASSWORD": owner,
        },
        "prefect-server": {
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            "PREFECT_SERVER_DATABASE_PASSWORD": prefect,
        },
        "deploy": client,
        "worker": client | catalog | worker,
        "webhook": client | catalog | _webhook_secrets(),
        "reader": dict(reader),
        "mlflow": {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _fernet_key()},
    }


def _database(user: str, password: str, host: str) -> str:
    return f"postgresql+psycopg://{user}:{password}@{host}:5432/cross_lora"


def _s3_key(name: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": f"{name}-{secrets.token_hex(8)}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(32),
    }


def _identities(worker: Mapping[str, str], reader: Mapping[str, str]) -> dict[str, list[dict[str, object]]]:
    """SeaweedFS's form of infra/iam: it has no prefixes finer than these, and Write includes deleting."""
    actions = {
        "worker": [f"{action}:{BUCKET}" for action in ("Read", "Write", "List")],
        "reader": [f"Read:{BUCKET}/store/adapters/*", f"List:{BUCKET}"],
    }
    return {
        "identities": [
            {
                "name": name,
                "credentials": [
                    {"accessKey": key["AWS_ACCESS_KEY_ID"], "secretKey": key["AWS_SECRET_ACCESS_KEY"]}
                ],
                "actions": actions[name],
            }
            for name, key in (("worker", worker), ("reader", reader))
        ]
    }


def _webhook_secrets() -> dict[str, str]:
    """One per sender; what follows `whsec_` is a key in base64, as Standard Webhooks has it."""
    mlflow, generic = (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" for _ in range(2))
    return {
        "CROSS_LORA_WEBHOOK_SECRET_MLFLOW": mlflow,
        "CROSS_LORA_WEBHOOK_SECRET_GENERIC": generic,
        "CROSS_LORA_WEBHOOK_SECRET_HUGGINGFACE": secrets.token_urlsafe(32),
    }


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
