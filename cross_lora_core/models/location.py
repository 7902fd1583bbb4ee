"""Where a base is: a folder, here or on S3, or a Hugging Face hub id that is downloaded first."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cross_lora_core.errors import BaseModelError
from cross_lora_core.storage import Folder, LocalFolder, open_folder

__all__ = ["Location", "locate_base", "read_config"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
SNAPSHOT = re.compile(r"models--(?P<name>[^/]+)/snapshots/(?P<revision>[^/]+)$")
WANTED_FILES = ["*.json", "*.safetensors", "tokenizer.model"]
UNWANTED_FILES = ["consolidated*", "original/*", "onnx/*", "*/*"]


@dataclass(frozen=True)
class Location:
    """A folder and what the base in it is called."""

    folder: Folder
    name: str
    revision: str | None


def locate_base(location_or_hub_id: str | Path, revision: str | None = None) -> Location:
    """The folder of a base, downloaded if it is a hub id. Code from a repository is never run.

    Raises:
        BaseModelError: neither a folder nor a hub id that can be reached.
        CrossLoraError: what `open_folder` raises for a URL.
    """
    text = str(location_or_hub_id)
    if "://" in text:
        found = open_folder(text)
        return Location(found, found.name, revision)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _describe(folder, revision)
    if folder.exists() or not HUB_ID.fullmatch(text):
        got = "a file" if folder.exists() else "no such folder"
        raise BaseModelError(
            "the folder of a base model, or a hub id such as org/name",
            got,
            text,
            "Give the folder that holds config.json.",
        )
    return _describe(_download(text, revision), revision)


def _describe(folder: Path, revision: str | None) -> Location:
    """A folder in the hub's cache tells the repository and the commit it is a copy of."""
    snapshot = SNAPSHOT.search(folder.absolute().as_posix())
    if snapshot is None:
        return Location(LocalFolder(folder), folder.resolve().name, revision)
    return Location(LocalFolder(folder), snapshot["name"].replace("--", "/"), snapshot["revision"])


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            hub_id, revision=revision, allow_patterns=WANTED_FILES, ignore_patterns=UNWANTED_FILES
        )
    except Exception as error:  # the hub client's errors have no common base, and none is retryable here
        raise BaseModelError(
            "a folder, or a hub id that can be reached",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}",
            hub_id if revision is None else f"{hub_id} at {revision}",
            "Check the spelling and the network, log in if the base is gated (hf auth login), "
            "or download it elsewhere and give the folder.",
        ) from error
    return Path(folder)


def read_config(folder: Folder) -> dict[str, Any]:
    """config.json of a base whose weights are plain numbers.

    Raises:
        BaseModelError: there is none, it is damaged, the base is quantised, or it would fetch code.
    """
    where = folder.where("config.json")
    try:
        config = json.loads(folder.read("config.json"))
    except FileNotFoundError as error:
        raise _no_config(folder) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_config(where, str(error)) from error
    if not isinstance(config, dict):
        raise _bad_config(where, f"a JSON {type(config).__name__}")
    _refuse_quantised(config, where)
    _refuse_kernels(config, where)
    return config


def _refuse_quantised(config: dict[str, Any], where: str) -> None:
    found = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if found:
        raise BaseModelError(
            "a base with fp16, bf16 or fp32 weights",
            f"quantization_config with method {found.get('quant_method', 'unknown')}",
            where,
            "Give the unquantised checkpoint of this base; the adapter also serves its quantised form.",
        )


def _refuse_kernels(config: dict[str, Any], where: str) -> None:
    """An attention named like a repository would be downloaded from the hub and run."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    named = [part.get(name) for part in parts for name in ("attn_implementation", "_attn_implementation")]
    if any("/" in str(one) for one in named if one):
        raise BaseModelError(
            "an attention implementation that transformers has",
            "one from a repository",
            where,
            "Remove attn_implementation from config.json; it is no part of the model.",
        )


def _no_config(folder: Folder) -> BaseModelError:
    adapter = folder.has("adapter_config.json")
    return BaseModelError(
        "config.json of a base model",
        "an adapter (adapter_config.json)" if adapter else "no such file",
        folder.where(),
        "Give the folder of the base this adapter was trained on."
        if adapter
        else "Give the folder that holds config.json and the safetensors weights.",
    )


def _bad_config(where: str, got: str) -> BaseModelError:
    return BaseModelError("config.json with one JSON object", got, where, "Download config.json again.")
