"""Bytes by key, in a local directory or an S3 bucket, with the same promises.

store = open_store("file:///var/lib/cross-lora/store")   # or s3://bucket/prefix
reference = store.put("factors/…/layers-000-005.safetensors", path)   # put-if-absent
path = store.fetch(reference.key)                                      # verified
"""

from cross_lora_core.storage.base import Store, StoredObject, check_key, sha256_of
from cross_lora_core.storage.local import LocalStore
from cross_lora_core.storage.opening import open_store
from cross_lora_core.storage.s3 import S3Store

__all__ = ["LocalStore", "S3Store", "Store", "StoredObject", "check_key", "open_store", "sha256_of"]
