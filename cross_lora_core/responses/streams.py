"""What a model computes inside while it reads: inputs and outputs of linear modules, and the residual stream.

Forward hooks keep the wanted positions only, and the head that scores the vocabulary is
never run. One batch is held at a time; callers keep second moments of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import FAMILIES, BaseModel, LinearSpec, Role
from cross_lora_core.responses.pairing import TokenBatch

__all__ = ["Responses", "layer_paths", "respond"]

_Key = tuple[int, Role]


@dataclass(frozen=True, eq=False)
class Responses:
    """Responses of one model to one batch at its kept positions, float32 on the model's device.

    Attributes:
        inputs: by (layer, role), [positions, d_in]. Roles that read the same tensor hold the same one.
        outputs: by (layer, role), [positions, d_out]; of a fused module the role's rows, adapters included.
        boundaries: by number, [positions, d_model]: 0 is the stream before the first layer, l that after
            layer l - 1; the last one stands before the final norm.
    """

    inputs: dict[_Key, Tensor] = field(default_factory=dict)
    outputs: dict[_Key, Tensor] = field(default_factory=dict)
    boundaries: dict[int, Tensor] = field(default_factory=dict)
    before: dict[int, Tensor] = field(default_factory=dict)


def layer_paths(base: BaseModel) -> tuple[str, ...]:
    """Paths of the decoder layers in the causal-LM class, first to last."""
    family = FAMILIES[base.family]
    return tuple(f"{family.container}{family.stack}.{layer}" for layer in range(base.layers))


@torch.inference_mode()
def respond(
    loaded: LoadedBase,
    batch: TokenBatch,
    *,
    modules: Sequence[LinearSpec] = (),
    layers: Sequence[str] = (),
    boundaries: Sequence[int] | None = None,
    norms: Mapping[int, str] | None = None,
) -> Responses:
    """Run the model as it is, with whatever adapter is on, and keep what the named places compute.

    Args:
        loaded: the model.
        batch: what it reads, and the positions to keep.
        modules: linear modules whose inputs and outputs are kept, of the base that is loaded.
        layers: `layer_paths` of the base, where boundaries are kept.
        boundaries: which; None for all of them, from 0 to the number of layers.
        norms: by layer, path of a norm whose input is kept; with modules only.
    """
    found = Responses()
    model = plain_model(loaded)
    kept = batch.kept.to(loaded.device)
    wanted = range(len(layers) + 1) if boundaries is None else boundaries
    with _hooks() as handles:
        seen = _Seen(kept)
        for spec in modules:
            handles.append(model.get_submodule(spec.module).register_forward_hook(_keep(found, spec, seen)))
        for layer, path in (norms or {}).items():
            handles.append(model.get_submodule(path).register_forward_pre_hook(_before(found, layer, seen)))
        if layers:
            handles += _boundary_hooks(model, layers, set(wanted), found, seen)
            if not modules:
                handles.append(_ending(model, layers, max(wanted)))
        with suppress(Reached):
            model.base_model(input_ids=batch.ids.to(loaded.device), use_cache=False)
    return found


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def plain_model(loaded: LoadedBase) -> Any:
    """The transformers model itself, with whatever adapter is on inside it."""
    return loaded.model.get_base_model() if isinstance(loaded.model, PeftModel) else loaded.model


def kept_rows(tensor: Tensor, kept: Tensor) -> Tensor:
    """[positions, d] in float32 of [strings, width, d], or of [strings * width, d]."""
    return tensor.reshape(-1, tensor.shape[-1])[kept].float()


def stream_of(output: Any) -> Tensor:
    """The residual stream in what a decoder layer returns."""
    stream: Tensor = output if isinstance(output, Tensor) else output[0]
    return stream


class Reached(Exception):
    """Ends a forward pass where nothing further is wanted."""


def _ending(model: Any, layers: Sequence[str], last: int) -> Any:
    """A hook that ends the pass where the last wanted boundary has been seen."""

    def end(*_arguments: Any) -> None:
        raise Reached

    if last == 0:
        return model.get_submodule(layers[0]).register_forward_pre_hook(end)
    return model.get_submodule(layers[last - 1]).register_forward_hook(end)


class _Seen:
    """Kept rows of the last tensor that was asked for: q, k and v read one tensor, gathered once."""

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept
        self._last: tuple[Tensor, Tensor] | None = None

    def rows(self, tensor: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not tensor:
            self._last = tensor, self.gather(tensor)
        return self._last[1]

    def gather(self, tensor: Tensor) -> Tensor:
        return kept_rows(tensor, self._kept)


def _keep(found: Responses, spec: LinearSpec, seen: _Seen) -> Callable[..., None]:
    def hook(_module: Any, arguments: tuple[Any, ...], output: Tensor) -> None:
        key = (spec.layer, spec.role)
        found.inputs[key] = seen.rows(arguments[0])
        rows = seen.gather(output)
        found.outputs[key] = rows if spec.row_ranges is None else rows[:, spec.row_index().to(rows.device)]

    return hook


def _before(found: Responses, layer: int, seen: _Seen) -> Callable[..., None]:
    def hook(_module: Any, arguments: tuple[Any, ...]) -> None:
        found.before[layer] = seen.gather(arguments[0])

    return hook


def _boundary_hooks(
    model: Any, layers: Sequence[str], wanted: set[int], found: Responses, seen: _Seen
) -> Iterator[Any]:
    def before(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.boundaries[0] = seen.gather(arguments[0] if arguments else named["hidden_states"])

    def after(number: int) -> Callable[..., None]:
        def hook(_module: Any, _arguments: Any, output: Any) -> None:
            found.boundaries[number] = seen.gather(stream_of(output))

        return hook

    if 0 in wanted:
        yield model.get_submodule(layers[0]).register_forward_pre_hook(before, with_kwargs=True)
    for number, path in enumerate(layers, 1):
        if number in wanted:
            yield model.get_submodule(path).register_forward_hook(after(number))
