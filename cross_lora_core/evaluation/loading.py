"""A real base model in memory, with adapters put on and taken off by PEFT itself.

Evaluation must see what a server would see: the adapter's files, loaded by the
library users load them with. What landed is read back from the model, because a
wrong name loads without an error and does nothing.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from cross_lora_core.adapters import read_tensors
from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import open_folder

__all__ = ["BaseToLoad", "Landing", "LoadedBase", "loaded_base", "loaded_bases"]


@dataclass(frozen=True)
class Landing:
    """What PEFT did with an adapter's file.

    Attributes:
        expected: modules in the file.
        landed: modules whose two factors are in the model, value for value.
        untouched: LoRA modules PEFT made in the model that the file has nothing for.
    """

    expected: int
    landed: int
    untouched: int

    @property
    def complete(self) -> bool:
        """Whether the model has what the file has: all of it, and nothing else."""
        return self.landed == self.expected and not self.untouched


class LoadedBase:
    """A base model and its tokenizer, in evaluation mode.

    Attributes:
        model: the transformers model, or the PEFT model while an adapter is on.
        limit: tokens the model can read.
        spoiled: an adapter changed more than PEFT takes back; the base must be loaded anew.
    """

    def __init__(self, location: Path, dtype: torch.dtype, device: torch.device) -> None:
        # said, not left out: transformers would otherwise ask the person at the terminal
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(location, **local)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype, use_safetensors=True, **local
        )
        self._plain = loaded.to(device).eval()
        # the folder's own is made for conversations: sampling, penalties of repetition
        self._plain.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self.model: Any = self._plain
        self.spoiled = False
        self.device = device
        config = self._plain.config.get_text_config()
        self.limit: int = int(getattr(config, "max_position_embeddings", 0) or 2048)

    @contextmanager
    def with_adapter(self, folder: Path | None) -> Iterator[Landing]:
        """Put an adapter on for the length of the block; None is the base alone.

        Afterwards the base computes what it computed before, bit for bit, unless it is `spoiled`.
        """
        if folder is None:
            yield Landing(0, 0, 0)
            return
        with self._wearing(lambda: PeftModel.from_pretrained(self._plain, str(folder)).eval()):
            yield _landing(self.model, read_tensors(open_folder(folder)))

    @contextmanager
    def with_new_lora(self, config: LoraConfig, *, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Put a new LoRA on, in training mode, for the length of the block; then the base is as before.

        Args:
            config: of the LoRA.
            seed: of its first factors; lora_B is zero.

        Yields:
            The trainable parameters by name, float32.

        Raises:
            ConfigurationError: the base has none of the modules.
        """

        def put_on() -> Any:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(seed)
                try:
                    return get_peft_model(self._plain, config).train()
                except ValueError as error:
                    raise ConfigurationError(
                        "target modules that the base has",
                        str(error),
                        self.tokenizer.name_or_path,
                        "Name some of the base's linear modules.",
                    ) from error

        with self._wearing(put_on):
            yield {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    @contextmanager
    def _wearing(self, put_on: Callable[[], Any]) -> Iterator[None]:
        self.spoiled = True  # until PEFT has put back everything it changed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing keys are counted, not only warned of
            self.model = put_on()
        try:
            yield
        finally:
            leaves_traces = _leaves_traces(self.model)
            self._plain = self.model.unload().eval()
            self.model, self.spoiled = self._plain, leaves_traces

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, with the tokenizer's own special tokens if asked."""
        return list(self.tokenizer(text, add_special_tokens=special).input_ids)


def _leaves_traces(model: Any) -> bool:
    """Whether an adapter trained more than LoRA factors: biases, whole layers and tokens stay behind."""
    config = model.peft_config[model.active_adapter]
    trained = (config.modules_to_save, getattr(config, "trainable_token_indices", None))
    return config.bias != "none" or any(trained)


def _landing(model: Any, file: Mapping[str, Tensor]) -> Landing:
    # embeddings are asked for by name: "auto" would look the base up on the model hub
    loaded: Mapping[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    modules = {_module(name) for name in file if ".lora_" in name}
    wrong = {_module(name) for name, tensor in file.items() if not _same(loaded.get(name), tensor)}
    made = {_module(name) for name in loaded if ".lora_" in name}
    return Landing(len(modules), len(modules - wrong), len(made - modules))


def _module(name: str) -> str:
    return name.split(".lora_")[0]


def _same(found: Tensor | None, wanted: Tensor) -> bool:
    return (
        found is not None
        and found.shape == wanted.shape
        and torch.equal(found.cpu().to(wanted.dtype), wanted)
    )


disable_progress_bar()  # type: ignore[no-untyped-call]
_lock = threading.Lock()
_Key = tuple[str, str, torch.dtype, torch.device, int]
_held: dict[_Key, LoadedBase] = {}


@dataclass(frozen=True)
class BaseToLoad:
    """A base that is wanted in memory.

    Attributes:
        location: its folder.
        digest: its identity; a changed folder is loaded anew.
        dtype: precision of weights and activations.
        device: where it runs.
    """

    location: Path
    digest: str
    dtype: torch.dtype
    device: torch.device


@contextmanager
def loaded_base(
    location: Path, digest: str, dtype: torch.dtype, device: torch.device
) -> Iterator[LoadedBase]:
    """The base, loaded once and kept until another is asked for; one user at a time in a process.

    Args:
        location: its folder.
        digest: its identity; a changed folder is loaded anew.
        dtype: precision of weights and activations.
        device: where it runs.
    """
    with loaded_bases(BaseToLoad(location, digest, dtype, device)) as (loaded,):
        yield loaded


@contextmanager
def loaded_bases(*wanted: BaseToLoad) -> Iterator[tuple[LoadedBase, ...]]:
    """Several bases at once, under the same rules; one that is named twice is there twice."""
    keys = [_key(one, wanted[:number].count(one)) for number, one in enumerate(wanted)]
    with _lock:
        for other in _held.keys() - set(keys):
            del _held[other]
        for key, one in zip(keys, wanted, strict=True):
            if key not in _held:
                _held[key] = LoadedBase(one.location, one.dtype, one.device)
        try:
            yield tuple(_held[key] for key in keys)
        finally:
            for key in keys:
                if _held[key].spoiled:
                    del _held[key]


def _key(one: BaseToLoad, copy: int) -> _Key:
    return (str(one.location), one.digest, one.dtype, one.device, copy)
