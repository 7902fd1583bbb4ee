"""Bases in memory for the tasks that run them over strings: float32, whatever evaluation uses."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from cross_lora_core.evaluation import BaseToLoad, LoadedBase, loaded_bases
from cross_lora_core.migration import BaseRef
from cross_lora_core.models import local_base

__all__ = ["bases_in_memory"]


def bases_in_memory(*bases: BaseRef, device: torch.device) -> AbstractContextManager[tuple[LoadedBase, ...]]:
    """These bases at once; one that is named twice is there twice."""
    return loaded_bases(
        *(
            BaseToLoad(local_base(one.location, one.digest), one.digest, torch.float32, device)
            for one in bases
        )
    )
