"""Bytes by key, in a local directory or an S3 bucket, with the same promises.

store = open_store("file:///var/lib/cross-lora/store")   # or s3://bucket/prefix
reference = store.put("factors/…/layers-000-005.safetensors", path)   # put-if-absent
path = store.fetch(reference.key)                                      # verified

What others wrote (bases, adapters) is read as a folder, there or on S3:

folder = open_folder("s3://bucket/bases/llama")
folder.read("config.json")
"""

from typing import TYPE_CHECKING, Any

from cross_lora_core.storage.base import MARKER, Store, StoredObject, check_key, missing, sha256_of
from cross_lora_core.storage.folders import (
    Folder,
    LocalFolder,
    absolute_location,
    check_location,
    open_folder,
    read_file,
)
from cross_lora_core.storage.local import LocalStore
from cross_lora_core.storage.opening import open_store
from cross_lora_core.storage.s3_location import S3Location, S3Options

if TYPE_CHECKING:
    from cross_lora_core.storage.s3 import S3Store

__all__ = [
    "MARKER",
    "Folder",
    "LocalFolder",
    "LocalStore",
    "S3Location",
    "S3Options",
    "S3Store",
    "Store",
    "StoredObject",
    "absolute_location",
    "check_key",
    "check_location",
    "missing",
    "open_folder",
    "open_store",
    "read_file",
    "sha256_of",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """S3Store when it is first asked for: who keeps everything in folders needs no boto3."""
        if name != "S3Store":
            raise AttributeError(name)
        from cross_lora_core.storage.s3 import S3Store

        return S3Store
