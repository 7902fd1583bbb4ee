"""A base model opened for reading: roles, weights, gains, embedding, tokens, identity.

Opening reads config.json and the headers of the weight files, nothing more. Every read
takes one tensor or a slice of it, from a folder of this machine or by range from S3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models.checkpoint import Checkpoint, open_checkpoint
from cross_lora_core.models.dimensions import read_dimensions
from cross_lora_core.models.families import Family, family_of
from cross_lora_core.models.known_digests import known_content
from cross_lora_core.models.location import locate_base, read_config
from cross_lora_core.models.naming import checkpoint_container
from cross_lora_core.models.roles import LinearSpec, Role
from cross_lora_core.models.rotary import RotarySpec, rotary_of
from cross_lora_core.models.specs import build_specs, complete_dimensions, embedding_name, wrong_shape
from cross_lora_core.models.vocabulary import read_tokens
from cross_lora_core.storage import Folder, Store, open_folder

__all__ = ["BaseModel", "open_base"]


class BaseModel:
    """One base; made by `open_base`. Pickles as its location and is opened again where it arrives.

    Attributes:
        name: hub id, or the folder's name, unless another was given.
        revision: commit of the hub, or what was given; None for a plain folder.
        location: opens it again: a path from the root, or an s3:// URL.
        files: the folder of its files.
        config: config.json as it stands.
        family: the `model_type`, a key of the role tables.
        layers: number of decoder layers.
        d_model: width of the residual stream.
        head_dim: rows of q, k and v that one head has; None where neither config nor family say.
        vocabulary: rows of the embedding, padding included.
        roles: the roles every layer of this base has.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        name: str,
        revision: str | None = None,
        cache_folder: Path | None = None,
        shared: Store | None = None,
    ) -> None:
        self.name, self.revision, self.location, self.files = name, revision, folder.location, folder
        self.config: dict[str, Any] = read_config(folder)
        where = folder.where("config.json")
        self._table: Family = family_of(self.config, where)
        text = {**self.config, **(self.config.get("text_config") or {})}
        _refuse_unhandled(self._table, text, where)
        self._affine = bool(text.get("layer_norm_elementwise_affine", True))
        self._remembered = cache_folder, shared
        self._checkpoint: Checkpoint = open_checkpoint(folder)
        self._container = checkpoint_container(self._table, self._checkpoint.tensors, folder.where())
        stated = read_dimensions(text, self._table, where)
        sizes = complete_dimensions(stated, self._table, self._container, self._checkpoint)
        self._specs = build_specs(self._table, sizes, self._container, self._checkpoint)
        self._embedding = embedding_name(self._table, self._container, self._checkpoint)
        self.family, self.roles = self._table.name, self._table.roles
        self.layers, self.d_model = sizes.layers or 0, sizes.d_model or 0
        self.head_dim = sizes.head_dim
        self.vocabulary = self._checkpoint.find(self._embedding).shape[0]

    def __repr__(self) -> str:
        return f"<BaseModel {self.name}: {self.family}, {self.layers} layers of {self.d_model}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, self.name, self.revision, *self._remembered)

    @cached_property
    def digest(self) -> str:
        """sha256 hex over the config's meaning and all tensors; the same however the files are sharded.

        Reads every byte once, then answers from what is remembered until a file changes. From then on
        each read is compared with the bytes the digest was made of.

        Raises:
            BaseModelError: a file is gone, or ends too early.
        """
        return self.read_digest()

    def read_digest(self, on_bytes: Callable[[int], None] | None = None) -> str:
        """`digest`, telling `on_bytes` how many more bytes were read, of `stored_bytes` in all."""
        content = known_content(self.config, self._checkpoint, *self._remembered, on_bytes)
        self._checkpoint = self._checkpoint.verified_by(content.blocks)
        vars(self)["digest"] = content.digest  # the property need not ask again
        return content.digest

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors, as they are stored."""
        return sum(one.stop - one.start for one in self._checkpoint.tensors.values())

    def linear(self, layer: int, role: Role) -> LinearSpec:
        """Where the weight of this (layer, role) is.

        Raises:
            BaseModelError: the base has no such layer or no such role.
        """
        spec = self._specs.get((layer, role))
        if spec is None:
            raise BaseModelError(
                f"a layer below {self.layers} and a role among {', '.join(self.roles)}",
                f"layer {layer}, role {role}",
                f"{self.name} ({self.family})",
                "Ask only for the layers and roles that this base has.",
            )
        return spec

    def linears(self) -> tuple[LinearSpec, ...]:
        """Every (layer, role) of the base, layer by layer in the order of `roles`."""
        return tuple(self.linear(layer, role) for layer in range(self.layers) for role in self.roles)

    def read_weight(self, layer: int, role: Role) -> Tensor:
        """W of y = W x, contiguous float32 [d_out, d_in]; of a fused tensor only the rows of this role
        are read (of GPT-2's Conv1D the whole tensor, whose columns they are).

        Raises:
            BaseModelError: no such layer or role, or bytes that are not those of the digest.
        """
        spec = self.linear(layer, role)
        if spec.transposed:
            return self._checkpoint.read(spec.tensor)[:, spec.row_index()].T.contiguous()
        return self._checkpoint.read(spec.tensor, spec.row_ranges)

    def read_rows(self, layer: int, role: Role, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of `read_weight`, the latter excluded; other rows are not read where
        they lie apart from these.

        Raises:
            BaseModelError: no such layer or role, or bytes that are not those of the digest.
        """
        spec = self.linear(layer, role)
        if spec.transposed:
            return self.read_weight(layer, role)[start:stop]
        return self._checkpoint.read(spec.tensor, _runs(spec.row_index()[start:stop].tolist()))

    def read_gains(self, layer: int, role: Role) -> tuple[Tensor | None, Tensor | None]:
        """Multipliers of the norms around this weight, as (input gain [d_in], output gain [d_out]).

        The input gain belongs to the norm whose output the weight reads (q, k, v, gate, up); the
        output gain to a norm applied to what it writes (o and down in Gemma 2 and 3). Gemma's
        stored w comes as 1 + w. None where there is no such norm. Biases of norms are not included.

        Raises:
            BaseModelError: no such layer or role, or the norm's tensor is missing.
        """
        self.linear(layer, role)
        return (
            self._read_gain(layer, self._table.input_norms.get(role)),
            self._read_gain(layer, self._table.output_norms.get(role)),
        )

    def input_norm(self, layer: int, role: Role) -> str | None:
        """Path, in the family's causal-LM class, of the norm whose output this weight reads."""
        norm = self._table.input_norms.get(role)
        return norm and f"{self._table.container}{self._table.stack}.{layer}.{norm}"

    @property
    def rotary(self) -> RotarySpec | None:
        """How q and k are turned by their position; None where the config does not say that they are."""
        return rotary_of({**self.config, **(self.config.get("text_config") or {})}, self.head_dim)

    def read_embedding(self, token_ids: Sequence[int]) -> Tensor:
        """Rows of the input embedding, float32 [n, d_model].

        As stored: the factor sqrt(d_model) that Gemma applies to them is not included.

        Raises:
            BaseModelError: an id is outside the embedding.
        """
        outside = [token for token in token_ids if not 0 <= token < self.vocabulary]
        if outside:
            raise BaseModelError(
                f"token ids below {self.vocabulary}",
                f"{outside[0]}",
                f"the embedding of {self.name}",
                "The tokenizer knows more tokens than the base; use those the base has.",
            )
        wanted = sorted(set(token_ids))
        if not wanted:
            return torch.empty(0, self.d_model)
        rows = self._checkpoint.read(self._embedding, _runs(wanted))
        position = {token: row for row, token in enumerate(wanted)}
        return rows[[position[token] for token in token_ids]]

    def tokens(self) -> dict[bytes, int]:
        """Bytes each ordinary token stands for -> its id; special and added tokens are left out.

        Raises:
            BaseModelError: no tokenizer.json in the folder, or one of an unknown kind.
        """
        return dict(self._tokens)

    @cached_property
    def _tokens(self) -> Mapping[bytes, int]:
        return read_tokens(self.files)

    def _read_gain(self, layer: int, norm: str | None) -> Tensor | None:
        if norm is None or not self._affine:
            return None
        name = f"{self._container}{self._table.stack}.{layer}.{norm}.weight"
        if (shape := self._checkpoint.find(name).shape) != (self.d_model,):
            raise wrong_shape(self._checkpoint, name, f"[{self.d_model}]", shape)
        return self._checkpoint.read(name) + self._table.gain_offset


def open_base(
    location_or_hub_id: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    cache_folder: Path | None = None,
    shared: Store | None = None,
) -> BaseModel:
    """Open a folder, here or on S3, or download a hub id and open it.

    Args:
        location_or_hub_id: folder with config.json and safetensors, `s3://bucket/prefix?options` of such
            a one, or `org/name`.
        name: what to call it; otherwise the hub id or the folder's name.
        revision: commit, branch or tag of the hub; recorded as given for a plain folder.
        cache_folder: where digests are remembered; `$XDG_CACHE_HOME/cross-lora` or
            `~/.cache/cross-lora` unless told.
        shared: store in which the digests of bases on S3 are remembered for all machines.

    Raises:
        ConfigurationError: an s3:// URL with options that cannot be used, or with credentials.
        StoreRefused: S3 refuses, for example because there is no such bucket.
        StoreUnavailable: S3 did not answer.
        BaseModelError: it cannot be found or reached, a file is missing or damaged, a tensor is
            missing or has another shape, or the base is quantised.
        UnknownArchitecture: there is no role table for its `model_type`.
    """
    found = locate_base(location_or_hub_id, revision)
    return BaseModel(
        found.folder,
        name=name or found.name,
        revision=found.revision,
        cache_folder=cache_folder,
        shared=shared,
    )


def _reopen(
    location: str, name: str, revision: str | None, cache_folder: Path | None, shared: Store | None
) -> BaseModel:
    folder = open_folder(location)
    return BaseModel(folder, name=name, revision=revision, cache_folder=cache_folder, shared=shared)


def _refuse_unhandled(family: Family, config: Mapping[str, Any], where: str) -> None:
    """OPT may embed in another width than the layers have; such an embedding anchors nothing."""
    width, embedded = config.get("hidden_size"), config.get("word_embed_proj_dim")
    if family.name == "opt" and embedded is not None and embedded != width:
        raise BaseModelError(
            f"word_embed_proj_dim equal to hidden_size ({width})",
            str(embedded),
            where,
            "Bases with project_in and project_out are not handled; use another size of this family.",
        )


def _runs(sorted_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges that cover distinct ascending ids."""
    runs: list[tuple[int, int]] = []
    for number in sorted_ids:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs
