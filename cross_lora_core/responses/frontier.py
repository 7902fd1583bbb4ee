"""A model's residual stream over many strings, held before one layer and carried up a layer at a time.

A method that fits the layers of a model from the bottom up needs, at each layer, what that layer reads
after everything below was changed. One stream per string is held, never the activations of all layers.
What a layer needs besides the stream (masks, positions) is taken from one ordinary forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.responses.pairing import TokenBatch
from cross_lora_core.responses.streams import Reached, kept_rows, plain_model, stream_of

__all__ = ["Frontier", "ModuleRun", "with_updates"]


@dataclass(frozen=True, eq=False)
class ModuleRun:
    """One module of one layer run on every string, at the kept positions, float32.

    Attributes:
        inputs: [positions, d_in], what the module reads.
        outputs: [positions, d_out], what it gives, bias and updates included.
        stream: [positions, d_model], the residual stream after the layer.
    """

    inputs: Tensor
    outputs: Tensor
    stream: Tensor


@dataclass(frozen=True)
class _Call:
    """What a layer is called with besides the stream."""

    arguments: tuple[Any, ...]
    named: Mapping[str, Any]


class Frontier:
    """The stream of one model before one of some consecutive layers, for every string of some batches.

    It starts before the first of them. The model is run as it is at each call.
    """

    def __init__(self, loaded: LoadedBase, batches: Sequence[TokenBatch], layers: Sequence[str]) -> None:
        """Run the strings once up to the last of the layers, to learn what each layer is called with.

        Args:
            loaded: the model.
            batches: the strings.
            layers: paths of consecutive decoder layers.
        """
        self._model = plain_model(loaded)
        self._layers = [self._model.get_submodule(path) for path in layers]
        self._next = 0
        self._kept = [batch.kept.to(loaded.device) for batch in batches]
        runs = [self._first_pass(batch.ids.to(loaded.device)) for batch in batches]
        self._states = [state for state, _ in runs]
        self._calls = [calls for _, calls in runs]

    @torch.inference_mode()
    def advance(self) -> None:
        """Carry the stream through the next layer."""
        self._states = [self._run(number) for number in range(len(self._states))]
        self._next += 1

    @torch.inference_mode()
    def look(self, module: str) -> ModuleRun:
        """Run the next layer without moving, and keep what one of its modules reads and gives.

        Args:
            module: path of the module in the causal-LM class.
        """
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        found: dict[str, Tensor] = {}

        def hook(_module: Any, arguments: tuple[Any, ...], output: Tensor) -> None:
            found["inputs"], found["outputs"] = arguments[0], output

        handle = self._model.get_submodule(module).register_forward_hook(hook)
        try:
            for number, kept in enumerate(self._kept):
                after = self._run(number)
                read, gave, stream = (
                    kept_rows(one, kept) for one in (found["inputs"], found["outputs"], after)
                )
                seen.append((read, gave, stream))
        finally:
            handle.remove()
        return ModuleRun(*(torch.cat(parts) for parts in zip(*seen, strict=True)))

    def _run(self, number: int) -> Tensor:
        call = self._calls[number][self._next]
        output = self._layers[self._next](self._states[number], *call.arguments, **call.named)
        return stream_of(output)

    @torch.inference_mode()
    def _first_pass(self, ids: Tensor) -> tuple[Tensor, list[_Call]]:
        calls: list[_Call] = []
        first: list[Tensor] = []

        def before(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            rest = dict(named)
            stream = arguments[0] if arguments else rest.pop("hidden_states")
            first.append(stream)
            calls.append(_Call(arguments[1:], rest))
            if len(calls) == len(self._layers):
                raise Reached

        handles = [one.register_forward_pre_hook(before, with_kwargs=True) for one in self._layers]
        try:
            with suppress(Reached):
                self._model.base_model(input_ids=ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return first[0], calls


@contextmanager
def with_updates(loaded: LoadedBase, updates: Mapping[str, LoraFactors]) -> Iterator[None]:
    """Add low-rank updates to the outputs of modules, by their paths, while the block runs."""
    model = plain_model(loaded)
    handles = [
        model.get_submodule(path).register_forward_hook(_adding(update, loaded))
        for path, update in updates.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(update: LoraFactors, loaded: LoadedBase) -> Any:
    A, B = update.lora_A.to(loaded.device), update.scaling * update.lora_B.to(loaded.device)

    def hook(_module: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        x = arguments[0].to(A.dtype)
        added: Tensor = (x @ A.T) @ B.T
        return output + added.to(output.dtype)

    return hook
