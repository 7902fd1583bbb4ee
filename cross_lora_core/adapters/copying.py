"""An adapter as a folder of this machine, for libraries that read nothing else."""

from __future__ import annotations

from pathlib import Path

from cross_lora_core.adapters.config import CONFIG_FILE
from cross_lora_core.adapters.reading import read_adapter
from cross_lora_core.adapters.weights import weights_file
from cross_lora_core.errors import AdapterRefused, ObjectCorrupted
from cross_lora_core.storage import open_folder

__all__ = ["local_adapter"]


def local_adapter(location: str, digest: str | None = None) -> Path:
    """The adapter's own folder, or a copy of one on S3: whole, of this digest, in a cache of bounded size.

    Args:
        location: of an adapter that was read.
        digest: of the same; read again where it is not given. A copy is compared with it once, before anybody
            sees it.

    Raises:
        ObjectCorrupted: two copies in a row had another digest.
        AdapterRefused: a file is gone or was replaced meanwhile.
        StoreRefused: the cache cannot be written, or the disk is full.
        StoreUnavailable: S3 did not answer.
    """
    digest = digest or read_adapter(location).digest
    folder = open_folder(location)
    remedy = "Run the same command again; if it stays so, restore the adapter where it is."

    def check(path: Path) -> None:
        try:
            found = read_adapter(path).digest
        except AdapterRefused as refusal:
            raise ObjectCorrupted(f"digest {digest[:12]}", str(refusal), folder.where(), remedy) from refusal
        if found != digest:
            raise ObjectCorrupted(f"digest {digest[:12]}", f"{found[:12]} of a copy", folder.where(), remedy)

    try:
        return folder.local([CONFIG_FILE, weights_file(folder)], check)
    except OSError as error:
        raise AdapterRefused("files that stay", str(error), folder.where(), remedy) from error
