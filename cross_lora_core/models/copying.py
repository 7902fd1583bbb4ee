"""A base as a folder of this machine, for libraries that read nothing else."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from cross_lora_core.errors import BaseModelError, ObjectCorrupted
from cross_lora_core.models.checkpoint import open_checkpoint
from cross_lora_core.models.digest import read_content
from cross_lora_core.models.location import UNWANTED_FILES, WANTED_FILES, read_config
from cross_lora_core.storage import LocalFolder, open_folder

__all__ = ["local_base"]


def local_base(location: str, digest: str) -> Path:
    """The base's own folder, or a copy of one on S3: whole, of this digest, in a cache of bounded size.

    Args:
        location: of an opened base.
        digest: of the same. A copy is compared with it once, before anybody sees it.

    Raises:
        ObjectCorrupted: two copies in a row had another digest.
        BaseModelError: a file is gone or was replaced meanwhile.
        StoreRefused: the cache cannot be written, or the disk is full.
        StoreUnavailable: S3 did not answer.
    """
    folder = open_folder(location)

    def check(path: Path) -> None:
        copy = LocalFolder(path)
        found = read_content(read_config(copy), open_checkpoint(copy)).digest
        if found != digest:
            remedy = "Run the same command again; if it stays so, restore the base where it is."
            raise ObjectCorrupted(f"digest {digest[:12]}", f"{found[:12]} of a copy", folder.where(), remedy)

    try:
        return folder.local([name for name in folder.names() if _is_wanted(name)], check)
    except OSError as error:
        remedy = "Restore the files of the base and run the same command again."
        raise BaseModelError("files that stay", str(error), folder.where(), remedy) from error


def _is_wanted(name: str) -> bool:
    unwanted = any(fnmatch(name, pattern) for pattern in UNWANTED_FILES)
    return not unwanted and any(fnmatch(name, pattern) for pattern in WANTED_FILES)
